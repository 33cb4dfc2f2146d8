/** Tests how a QEMU gets ready to take its stream, and how the transfer stream to the source is opened. */
import t, { type Test } from "tap";
import { stage } from "../../../../agent-destination/migration/phases/stage.ts";
import { dialSource, type SourceConnection } from "../../../../shared/link/grpc/grpc-link.ts";
import { bounded } from "../../../support/bounded.ts";
import { destinationPhase, ID, TOKEN } from "../../../support/destination-cx.ts";
import { DialledSource } from "../../../support/dialled-source.ts";
import { contract } from "../../../support/frames.ts";
import { offer } from "../../../support/handshake-fixtures.ts";
import { IncomingStream } from "../../../support/incoming-stream.ts";
import { LIMITS } from "../../../support/link.ts";

/** Lets a QEMU be staged that waits for its stream. */
async function staging(t: Test, postcopy = false) {
  const phase = await destinationPhase(t, { status: "inmigrate", migration: "none" });
  const { guest, cx, qemu, steps } = phase;
  const incoming = IncomingStream.of(t, qemu);
  const from = await DialledSource.serve(t);
  // a connection that was begun while QEMU started
  const ahead: string[] = [];
  const source: SourceConnection = {
    dial: () => {
      ahead.push("dial");
      return dialSource(from.address, LIMITS);
    },
    close: () => void ahead.push("close"),
  };
  guest.keepMonitor = async () => void steps.push("the keeper holds the monitor");
  guest.dismissKeeper = () => void steps.push("the keeper is dismissed");
  const arguments_: unknown[] = [];
  qemu.whim = ({ arguments: given }) => {
    arguments_.push(given);
    return undefined;
  };
  const state = {
    ...({ kind: "staging", guest, contract: { ...contract, postcopy }, disks: undefined, source } as const),
    offer: { ...offer, sourceAddress: from.address },
  };
  const staged = async () => {
    const end = await bounded(stage(state, cx), 20_000, "the staging");
    t.teardown(() => end.receiver.close());
    return end;
  };
  return { ...phase, incoming, from, ahead, arguments_, staged };
}

t.test("QEMU listens before the source is dialled, by the connection that was begun ahead", async (t) => {
  const { staged, steps, arguments_, incoming, from, ahead, guest, cx } = await staging(t);
  const end = await staged();
  t.match(end, { kind: "receiving", guest });
  t.same(steps, ["migrate-set-capabilities", "migrate-incoming", "the keeper is dismissed"]);
  const path = `${cx.config.runtimeDirectory}/${ID}.incoming`;
  t.same(arguments_, [{ capabilities: [{ capability: "events", state: true }] }, { uri: `unix:${path}` }]);
  t.same(incoming.paths, [path]);
  await incoming.connected();
  t.match(await from.untilDialled(), { migrationId: ID, token: TOKEN, attempt: 1, restarted: false });
  t.same(ahead, ["dial"]);
});

t.test(
  "where post-copy was agreed on, QEMU is given the capability first, and a keeper its monitor last",
  async (t) => {
    const { staged, steps, arguments_ } = await staging(t, true);
    await staged();
    t.same(steps, [
      ...["migrate-set-capabilities", "migrate-set-capabilities", "migrate-incoming"],
      "the keeper holds the monitor",
    ]);
    t.match(arguments_[1], { capabilities: [{ capability: "postcopy-ram", state: true }] });
  },
);

t.test("a QEMU that cannot go into post-copy after all ends the migration, before the source is dialled", async (t) => {
  const { staged, qemu, ahead, incoming } = await staging(t, true);
  qemu.whim = ({ arguments: given }) =>
    JSON.stringify(given).includes("postcopy-ram") ? "Postcopy is not supported: userfaultfd not available" : undefined;
  await t.rejects(staged(), {
    code: "qemu-failed",
    role: "destination",
    message: /cannot go into post-copy: userfaultfd not available.*; it was able to when the migration was agreed on/,
  });
  t.same(ahead, ["close"]);
  t.same(incoming.paths, []);
});

t.test("a QEMU that does not listen is named, and the connection that was begun ahead is closed", async (t) => {
  const { staged, qemu, ahead } = await staging(t);
  qemu.takesStreamAt = () => undefined;
  await t.rejects(staged(), { code: "qemu-failed", message: /Cannot reach the destination's QEMU at .*incoming/ });
  t.same(ahead, ["close"]);
});

t.test("a monitor that no keeper can hold ends the migration, and the source hears why", async (t) => {
  const { staged, guest, from } = await staging(t, true);
  guest.keepMonitor = async () => Promise.reject(new Error("there is no keeper"));
  await t.rejects(staged(), { message: "there is no keeper" });
  t.match(await from.untilSaid("failure"), { kind: "failure", message: "there is no keeper" });
});

t.test("the end of QEMU is a fault of the stream from then on, in QEMU's words", async (t) => {
  const { staged, qemu } = await staging(t);
  const { receiver } = await staged();
  const failed = new Promise((resolve) => receiver.signal.addEventListener("abort", resolve));
  await qemu.end();
  await bounded(failed, 20_000, "the fault of the stream");
  t.match(receiver.signal.reason, { code: "qemu-failed", message: /destination's QEMU/ });
});
