/** Tests the state *staging*: what is written and said to QEMU, in which order, before the first page is read. */
import { readdirSync } from "node:fs";
import t, { type Test } from "tap";
import { plan } from "../../../../agent-source/migration/phases/plan.ts";
import { stage } from "../../../../agent-source/migration/phases/stage.ts";
import type { Contract } from "../../../../shared/protocol/messages.ts";
import { FakeClock } from "../../../support/fake-clock.ts";
import { FAKE_SETTINGS } from "../../../support/fake-guest-facts.ts";
import type { Command } from "../../../support/fake-monitor.ts";
import { contract as anyContract } from "../../../support/frames.ts";
import { type MigratingOptions, PLAIN, passing, SMALL, terms, until } from "../../../support/migrating.ts";
import { sourcePhase } from "../../../support/source-cx.ts";
import { StreamDestination } from "../../../support/stream-destination.ts";
import { StreamingQemu } from "../../../support/streaming-qemu.ts";

interface Staging extends MigratingOptions {
  readonly contract?: Partial<Contract>;
  /** If false, the destination never dials in. */
  readonly dials?: boolean;
}

async function staging(t: Test, options: Staging = {}) {
  const { status = "running", dials = true, stream = {} } = options;
  const phase = await sourcePhase(t, status, { flags: SMALL, asked: PLAIN, ...options });
  const { cx, qemu, happened } = phase;
  const asked = await plan({ kind: "planned" }, cx);
  t.teardown(() => asked.qmp.close());
  const commands: Command[] = [];
  const { onSaid } = qemu;
  qemu.onSaid = (command) => {
    onSaid(command);
    commands.push(command);
  };
  new StreamingQemu(t, qemu, stream);
  const there = new StreamDestination(cx);
  if (dials) there.dial();
  const dialledIn = () => (dials ? Promise.resolve(there.link) : new Promise<never>(() => undefined));
  const contract = { ...anyContract, ...terms(stream.postcopy === true), ...options.contract };
  const staged = async () => {
    const next = await stage({ ...asked, kind: "staging", contract }, { ...cx, dialledIn });
    t.teardown(() => (next.kind === "copying" ? next.session : next.undo.session)?.stop());
    return next;
  };
  return { ...phase, there, commands, happened, staged };
}

/** The capabilities that QEMU was told to set, those that are on. */
const switchedOn = (commands: readonly Command[]): unknown =>
  commands.flatMap(({ execute, arguments: given = {} }) =>
    execute === "migrate-set-capabilities" && Array.isArray(given.capabilities)
      ? given.capabilities.filter(({ state }) => state).map(({ capability }) => capability)
      : [],
  );

t.test("the journal has QEMU's settings before QEMU is told anything, and then QEMU begins to write", async (t) => {
  const { staged, happened, record, commands } = await staging(t);
  const next = await staged();
  t.equal(next.kind, "copying");
  t.same(happened, [
    "journal: plan",
    "qemu: migrate-set-capabilities",
    "qemu: migrate-set-parameters",
    "qemu: migrate",
  ]);
  const { events: _, ...others } = FAKE_SETTINGS.capabilities;
  t.match(await record(), { kind: "plan", settings: { capabilities: others, parameters: FAKE_SETTINGS.parameters } });
  t.match(commands.at(-1)?.arguments, { uri: /^unix:.*\/0123456789ab\.stream$/ });
});

t.test("QEMU gets the capability for post-copy only where both agents have agreed on post-copy", async (t) => {
  for (const postcopy of [false, true]) {
    const { staged, commands } = await staging(t, { stream: { postcopy } });
    await staged();
    const always = ["return-path", "switchover-ack", "events"];
    t.same(switchedOn(commands), postcopy ? [...always, "postcopy-ram"] : always);
  }
});

t.test("the operator sees what was measured of the link", async (t) => {
  const { staged, cx } = await staging(t);
  await staged();
  t.match(cx.report.negotiated, { "measured bandwidth": /^\d+ Mbit\/s$/, "measured round trip": /^\d+\.\d\d ms$/ });
});

t.test("the journal says of a paused guest that it is paused, so that no agent ever starts it", async (t) => {
  const { staged, record } = await staging(t, { status: "paused" });
  t.match(await staged(), { kind: "copying", session: { paused: true } });
  t.match(await record(), { kind: "plan", grant: { paused: true } });
});

t.test("a destination that does not dial in is given up, with QEMU and the journal as they were", async (t) => {
  const clock = new FakeClock();
  const { staged, qemu, cx } = await staging(t, { clock, dials: false, contract: { followUpMs: 30_000 } });
  const before = readdirSync(cx.config.stateDirectory);
  await t.rejects(passing(clock, staged(), 1000), {
    code: "peer-lost",
    message: "The destination accepted, but did not dial alpha:7411 within 30000 ms",
    advice: /reaches this agent's advertised address/,
  });
  t.same(qemu.said, []);
  t.same(readdirSync(cx.config.stateDirectory), before);
});

t.test("the operator's cancel ends the wait for the destination, with QEMU as it was", async (t) => {
  const { staged, qemu, cancel, record } = await staging(t, { dials: false });
  const end = staged();
  cancel();
  await t.rejects(end, { code: "cancelled" });
  t.same(qemu.said, []);
  t.equal(await record(), undefined);
});

t.test("nothing is said to QEMU when the disk does not take the record", async (t) => {
  const { staged, qemu, failWrites } = await staging(t);
  failWrites(true);
  t.match(await staged(), { kind: "keeping", fault: { code: "state-directory" } });
  t.same(qemu.said, []);
});

t.test("a QEMU that refuses to migrate gets its settings back in the next state", async (t) => {
  const { staged, qemu } = await staging(t);
  qemu.whim = ({ execute }) => (execute === "migrate" ? "There's a migration process in progress" : undefined);
  t.match(await staged(), {
    kind: "keeping",
    fault: { code: "qmp-command", message: /migration process in progress/ },
    undo: {
      ...{ touched: true, accepted: true, granted: "no", mayBeWhole: false, isRetired: false, paused: false },
      settings: { parameters: FAKE_SETTINGS.parameters },
    },
  });
});

t.test("a QEMU that does not connect to the agent's socket is given up after 10 s", async (t) => {
  const clock = new FakeClock();
  const { staged } = await staging(t, { clock, stream: { connects: false } });
  t.match(await passing(clock, staged(), 500), {
    kind: "keeping",
    fault: { code: "qemu-failed", message: /^The source QEMU did not connect to .* within 10000 ms$/ },
  });
});

t.test("a destination that dials in and then says nothing is given up, and QEMU has not begun", async (t) => {
  const clock = new FakeClock();
  const { staged, there, qemu } = await staging(t, { clock });
  there.answers = false;
  t.match(await passing(clock, staged(), 1000), {
    kind: "keeping",
    fault: { code: "peer-lost", message: /has said nothing for/ },
  });
  t.notOk(qemu.said.includes("migrate"));
});

t.test("a link that is cut while it is measured is measured again once the destination dials again", async (t) => {
  const { staged, there, happened } = await staging(t);
  there.answers = false;
  const end = staged();
  await until(() => happened.includes("qemu: migrate-set-parameters"), "QEMU's settings");
  there.cut();
  await until(() => there.link.isCut, "the cut");
  there.answers = true;
  there.dial();
  t.match(await end, { kind: "copying" });
});
