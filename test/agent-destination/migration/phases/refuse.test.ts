/**
 * Tests how a guest is refused: the refusal is durable before the source hears of it, and nothing is refused that may
 * run here.
 */
import t, { type Test } from "tap";
import type { State, Undo } from "../../../../agent-destination/migration/destination-state.ts";
import { refuse } from "../../../../agent-destination/migration/phases/refuse.ts";
import { MigrationFault } from "../../../../shared/fault.ts";
import { bounded } from "../../../support/bounded.ts";
import { type Came, destinationPhase, POSTCOPY, type StreamOptions } from "../../../support/destination-cx.ts";

const FAULT = new MigrationFault("peer-failed", "The source withdrew the migration");

interface Refusing extends Came, Partial<Pick<State<"refusing">, "isWhole" | "mayBeRunning">> {
  readonly stream?: StreamOptions;
  /** True where no QEMU was started for the guest. */
  readonly isEmpty?: boolean;
}

/** Lets a guest be refused. */
async function refusing(t: Test, options: Refusing = {}) {
  const { isWhole, mayBeRunning = false, stream, isEmpty = false, ...came } = options;
  const phase = await destinationPhase(t, came);
  await phase.write("waiting");
  const link = stream === undefined ? undefined : phase.stream(stream);
  const undo: Undo = isEmpty ? {} : { guest: phase.guest, ...(link && { receiver: link.receiver }) };
  const state = { kind: "refusing", fault: FAULT, undo, isWhole, mayBeRunning } as const;
  return { ...phase, link, refused: () => bounded(refuse(state, phase.cx), 20_000, "the refusal") };
}

t.test("the journal has the refusal and its reason, and the source is told nothing yet", async (t) => {
  const { refused, steps, record, guest } = await refusing(t, { isWhole: true, stream: {} });
  t.match(await refused(), { kind: "withheld", fault: FAULT, undo: { guest } });
  t.same(steps, ["journal: refused"]);
  const written = await record();
  t.match(written, { kind: "refused", reason: "The source withdrew the migration" });
  t.notOk(written?.heard, "an agent that starts again keeps the copy");
});

t.test("a copy that is not whole is not kept, and neither is that of a QEMU that has ended", async (t) => {
  const partial = await refusing(t, { isWhole: false });
  t.match(await partial.refused(), { kind: "discarding", refused: true });
  const gone = await refusing(t, { isWhole: true });
  await gone.qemu.end();
  t.match(await gone.refused(), { kind: "discarding", refused: true });
  t.match(await gone.record(), { kind: "refused" });
});

t.test("where nobody has seen whether the copy is whole, QEMU is asked", async (t) => {
  for (const [status, migration, kind] of [
    ["paused", "completed", "withheld"],
    ["inmigrate", "active", "discarding"],
    ["paused", "active", "discarding"],
  ] as const) {
    const { refused } = await refusing(t, { status, migration });
    t.match(await refused(), { kind }, `${status}, ${migration}`);
  }
});

t.test("a QEMU that does not tell whether its copy is whole keeps it", async (t) => {
  const { refused, qemu } = await refusing(t);
  qemu.whim = ({ execute }) => (execute === "query-migrate" ? "it does not say" : undefined);
  t.match(await refused(), { kind: "withheld" });
});

t.test("a disk that does not take the refusal is replaced by a mark in QEMU, and the operator is told", async (t) => {
  const { refused, failWrites, qemu, told, record } = await refusing(t, { isWhole: true });
  failWrites(true);
  t.match(await refused(), { kind: "withheld" });
  t.same([...qemu.objects], ["ferry-refused"]);
  t.match(told.news, [/it is refused, and the journal of this agent cannot be written: Cannot write: ENOSPC/]);
  t.match(await record(), { kind: "waiting" });
});

t.test("a refusal that neither the disk nor QEMU takes is tried again, and not said", async (t) => {
  const { refused, failWrites, qemu, steps } = await refusing(t, { isWhole: true, stream: {} });
  failWrites(true);
  qemu.whim = ({ execute }) => (execute === "object-add" ? "it takes no objects" : undefined);
  await t.rejects(refused(), { code: "qmp-command", message: /it takes no objects/ });
  t.same(steps, ["object-add"]);
});

t.test("the end of QEMU makes a refusal durable, unless the journal may say that the guest was started", async (t) => {
  const never = await refusing(t, { isWhole: true });
  await never.qemu.end();
  never.failWrites(true);
  t.match(await never.refused(), { kind: "discarding", refused: true });
  const maybe = await refusing(t, { isWhole: true, mayBeRunning: true });
  await maybe.qemu.end();
  maybe.failWrites(true);
  await t.rejects(maybe.refused(), { code: "state-directory" });
});

t.test(
  "a guest without a QEMU is refused by the journal alone, or by nothing where it never was granted",
  async (t) => {
    const { refused, failWrites, record } = await refusing(t, { isEmpty: true });
    t.match(await refused(), { kind: "discarding", undo: {}, refused: true });
    t.match(await record(), { kind: "refused" });
    failWrites(true);
    t.match(await refused(), { kind: "discarding" });
  },
);

t.test("a guest that somebody has started is not refused, but has arrived", async (t) => {
  for (const status of ["running", "io-error", "postmigrate"]) {
    const { refused, steps, record } = await refusing(t, { isWhole: true, status });
    t.same(await refused(), { kind: "arrived" }, status);
    t.same(steps, ["journal: arrived"]);
    t.match(await record(), { kind: "arrived", ungranted: true });
  }
});

t.test("a guest that somebody starts while the refusal is written has arrived, and the record says so", async (t) => {
  const { refused, qemu, cx, steps, record } = await refusing(t, { isWhole: true, stream: {} });
  const write = cx.journal.write;
  cx.journal.write = async (id, written, options) => {
    await write(id, written, options);
    if (written.kind === "refused") qemu.become("running");
  };
  t.same(await refused(), { kind: "arrived" });
  t.same(steps, ["journal: refused", "journal: arrived"]);
  t.match(await record(), { kind: "arrived", ungranted: true });
});

t.test("the pages of a post-copy that somebody has started are fetched", async (t) => {
  const { refused, guest, link, record } = await refusing(t, { status: "running", stream: { postcopy: true } });
  const end = await refused();
  t.match(end, { kind: "pulling", guest, postcopy: POSTCOPY });
  t.ok("receiver" in end && end.receiver === link?.receiver);
  t.match(await record(), { kind: "running", ungranted: true, postcopy: POSTCOPY });
});

t.test("a QEMU that does not say whether it runs the guest is not seen to run it", async (t) => {
  const { refused, qemu } = await refusing(t, { isWhole: true });
  qemu.whim = ({ execute }) => (execute === "query-status" ? "it does not say" : undefined);
  t.match(await refused(), { kind: "withheld" });
});
