/** Tests the state *switching*: how the guest is stopped, what is written for that, and what ends the switchover. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import t, { type Test } from "tap";
import { switchOver } from "../../../../agent-source/migration/phases/switch.ts";
import type { State } from "../../../../agent-source/migration/source-state.ts";
import { DIGEST_BYTES } from "../../../../shared/runtime/guest/memory-digests.ts";
import { FakeClock } from "../../../support/fake-clock.ts";
import { folder } from "../../../support/link-fixtures.ts";
import { type MigratingOptions, migrating, passing, until } from "../../../support/migrating.ts";

type Switching = MigratingOptions & {
  readonly into?: State<"switching">["into"];
  /** If false, the destination says nothing at the end of the stream. */
  readonly loads?: boolean;
};

async function switching(t: Test, options: Switching = {}) {
  const { into = "destination", loads = true } = options;
  const phase = await migrating(t, { stream: { postcopy: into === "postcopy" }, ...options });
  const { session, there, cx } = phase;
  const note = there.onHeard;
  there.onHeard = (message) => {
    note(message);
    if (message.kind === "endOfStream" && loads) there.sayLoaded();
  };
  const switched = () =>
    switchOver({ kind: "switching", session, into, reason: into === "nothing" ? "" : "it fits" }, cx);
  return { ...phase, switched };
}

t.test(
  "QEMU stops the guest by itself once it may, and the journal says `retiring` before QEMU is retired",
  async (t) => {
    const { switched, happened, session, record } = await switching(t);
    const { kind, loaded } = await switched();
    t.equal(kind, "retiring");
    t.match(loaded, { session, reason: "it fits", times: { verifyMs: 0, compared: { pages: 0 } } });
    t.ok(loaded.times.stoppedUs > 0 && loaded.times.lastPagesUs > 0);
    await until(() => happened.includes("qemu: migrate-set-parameters"), "the leave to stop");
    t.same([...happened].sort(), [
      ...["journal: plan retiring", "link: endOfStream", "qemu hears: ack", "qemu: migrate-set-parameters"],
    ]);
    t.match(await record(), { kind: "plan", retiring: true, grant: { paused: false } });
  },
);

t.test("for post-copy the agent stops the guest itself, after the journal says so", async (t) => {
  const { switched, happened, session, record } = await switching(t, { into: "postcopy" });
  const end = switched();
  await session.packaged.promise;
  session.inbox.loaded.resolve({ kind: "loaded", lastSequence: 0, lastByteAtUs: 1, loadedAtUs: 2 });
  t.match(await end, { kind: "retiring" });
  t.ok(session.isPostcopy);
  t.same(happened, [
    "journal: plan retiring postcopy",
    "qemu: migrate-start-postcopy",
    "qemu: stop",
    "qemu hears: ack",
  ]);
  t.match(await record(), { postcopy: { ramSectionId: 2, blocks: [{ name: "pc.ram" }], frameBytes: 65_536 } });
});

t.test("a guest that its operator pauses as post-copy is about to begin is not stopped by the agent", async (t) => {
  const { switched, qemu, session, record, happened } = await switching(t, { into: "postcopy" });
  qemu.become("paused");
  await until(() => session.runs.standsStill, "the operator's stop");
  await t.rejects(switched(), { code: "guest-not-running", message: /was paused as post-copy was about to begin/ });
  t.same(happened, ["journal: plan retiring postcopy", "journal: plan retiring"]);
  t.match(await record(), { grant: { paused: true } }, "no agent may start it");
  t.equal((await record())?.postcopy, undefined);
});

t.test("a QEMU with a paused guest completes by itself, and is told nothing", async (t) => {
  const { switched, stream, happened } = await switching(t, { status: "paused", into: "nothing" });
  stream.sendDevices("paused");
  t.match(await switched(), {
    kind: "retiring",
    loaded: { reason: "the guest is paused: copied once", session: { paused: true }, times: { stoppedUs: 0 } },
  });
  t.same([...happened].sort(), ["journal: plan retiring", "link: endOfStream"]);
});

t.test("a guest that was paused while it was copied is written down as paused before it can be granted", async (t) => {
  const { switched, session, record, happened } = await switching(t, { stream: { stoppedAs: "paused" } });
  t.match(await switched(), { loaded: { reason: "it fits; the guest was paused while it was copied" } });
  t.ok(session.paused);
  t.match(await record(), { kind: "plan", retiring: true, grant: { paused: true } });
  t.equal(happened.filter((one) => one === "journal: plan retiring").length, 2);
});

t.test("a guest that stopped for a reason of its own is not given away", async (t) => {
  const { switched } = await switching(t, { stream: { stoppedAs: "io-error" } });
  await t.rejects(switched(), { code: "guest-not-running", message: /its QEMU calls it io-error/ });
});

t.test("a QEMU that does not stop the guest within 30 s ends the switchover", async (t) => {
  const clock = new FakeClock();
  const { switched } = await switching(t, { clock, stream: { stops: false } });
  await t.rejects(passing(clock, switched(), 1000), {
    code: "qmp-timeout",
    message: "The source QEMU did not stop the guest within 30000 ms",
  });
  t.ok(clock.monotonicMs() >= 30_000);
});

t.test("a destination that does not load the guest within 60 s ends the switchover", async (t) => {
  const clock = new FakeClock();
  const { switched, there } = await switching(t, { clock, loads: false });
  const end = switched();
  end.catch(() => undefined);
  await until(() => there.kinds.includes("endOfStream"), "the end of the stream");
  await t.rejects(passing(clock, end, 1000), {
    code: "timeout",
    message: "The destination did not load the guest within 60000 ms",
  });
});

t.test("a destination that has not loaded every frame is not granted the guest", async (t) => {
  const { switched, there } = await switching(t, { loads: false });
  const end = switched();
  await there.until("endOfStream");
  there.sayLoaded(there.lastSequence - 1);
  await t.rejects(end, { code: "peer-invalid", message: /^The destination loaded \d+ of \d+ frames$/ });
});

t.test("with the guest about to be stopped, a link that is down is given up after link.finalGiveUpAfter", async (t) => {
  const clock = new FakeClock();
  const { switched, there, session, cx } = await switching(t, { clock, loads: false });
  const end = switched();
  end.catch(() => undefined);
  await there.until("endOfStream");
  there.cut();
  await until(() => session.channel.isCut, "the cut");
  await t.rejects(passing(clock, end), {
    code: "peer-lost",
    message: new RegExp(`(${cx.config.link.finalGiveUpAfterMs} ms)`),
  });
});

t.test("a disk that does not take `retiring` ends the switchover before QEMU is retired", async (t) => {
  const { switched, failWrites, stream } = await switching(t);
  failWrites(true);
  await t.rejects(switched(), { code: "state-directory" });
  t.notOk(stream.heard.includes("shut 0"));
});

t.test("the operator's cancel ends the switchover", async (t) => {
  const { switched, there, cancel } = await switching(t, { loads: false });
  const end = switched();
  await there.until("endOfStream");
  cancel();
  await t.rejects(end, { code: "cancelled" });
});

/** Devices and disks that were agreed on: none, as those of the simulated QEMU. */
const NONE = { boot: "", drives: [], memory: [], gone: [], jobs: [] };
const AGREED = { devices: [], disks: { ...NONE, signature: JSON.stringify([[], [], []]) } };

t.test("a guest whose disks and devices are as agreed is handed over", async (t) => {
  const { switched } = await switching(t, { agreed: AGREED });
  t.match(await switched(), { kind: "retiring" });
});

t.test("a guest that has lost a device since it was agreed on is not handed over", async (t) => {
  const agreed = { ...AGREED, devices: ["peripheral/net1 (e1000)"] };
  const { switched } = await switching(t, { agreed });
  await t.rejects(switched(), {
    code: "devices-changed",
    message: /while the guest was copied: peripheral\/net1 \(e1000\) is gone/,
  });
});

t.test("a guest whose disks have changed since they were agreed on is not handed over", async (t) => {
  const agreed = { ...AGREED, disks: { ...AGREED.disks, signature: "another" } };
  const { switched } = await switching(t, { agreed });
  await t.rejects(switched(), { code: "disks-changed", message: /changed the guest's disks while it was copied/ });
});

t.test("a QEMU that fails since somebody has changed the disks is explained by the change", async (t) => {
  const agreed = { ...AGREED, disks: { ...AGREED.disks, signature: "another" } };
  const { switched, stream, happened } = await switching(t, { agreed, stream: { stops: false } });
  const end = switched();
  await until(() => happened.includes("qemu hears: ack"), "the acknowledgement");
  stream.breakStream("failed");
  await t.rejects(end, {
    code: "disks-changed",
    message: /changed the guest's disks.*; The source QEMU ended its migration stream/,
    cause: { code: "qemu-failed" },
  });
});

t.test("an image that somebody has replaced at its path ends the switchover before the guest is stopped", async (t) => {
  const file = join(folder(t), "disk.raw");
  writeFileSync(file, "");
  const image = {
    format: "raw",
    file,
    byteLength: 0,
    writable: true,
    inode: "of an earlier file",
    baseName: "disk.raw",
  };
  const drive = { name: "disk0", qdev: "disk0", removable: false, place: "", layers: [image] };
  const agreed = { ...AGREED, disks: { ...AGREED.disks, drives: [drive] } };
  const { switched, happened } = await switching(t, { agreed });
  await t.rejects(switched(), { code: "disks-changed", message: /another file in the place of .*disk\.raw/ });
  t.same(happened, []);
});

/** Compares the memory of a guest that has zeros everywhere with what the destination says of its memory. */
async function verifying(t: Test, digest: (zeros: Uint8Array) => Uint8Array) {
  const phase = await switching(t, { asked: { verify: true } });
  const { qemu, there } = phase;
  const { onSaid } = qemu;
  qemu.onSaid = (command) => {
    onSaid(command);
    const { filename, size } = command.arguments ?? {};
    if (command.execute === "pmemsave") writeFileSync(String(filename), Buffer.alloc(Number(size)));
  };
  qemu.whim = ({ execute }) => (execute === "query-vm-generation-id" ? "no such device" : undefined);
  const { onHeard } = there;
  there.onHeard = (message) => {
    onHeard(message);
    if (message.kind !== "verifyRequest") return;
    const { start, byteLength, last } = message;
    const page = Buffer.from(ZERO_DIGEST, "hex");
    const digests = digest(Buffer.concat(Array.from({ length: byteLength / 4096 }, () => page)));
    there.say({ kind: "pageDigests", start, byteLength, digests, last });
  };
  return phase;
}
/** The first bytes of the SHA-256 of a page of zeros. */
const ZERO_DIGEST = "ad7facb2586fc6e966c004d7d1d16b024f5805ff7cb47c7a85dabd8b48892ca7".slice(0, 2 * DIGEST_BYTES);

t.test("with --verify every page is compared while the guest stands still, before QEMU is retired", async (t) => {
  const { switched, happened, stream } = await verifying(t, (digests) => digests);
  t.match(await switched(), { kind: "retiring", loaded: { times: { compared: { pages: 40, exceptions: [] } } } });
  t.ok(happened.indexOf("link: verifyRequest") > happened.indexOf("link: endOfStream"));
  t.same(stream.heard, ["ack"]);
});

t.test("with --verify a page that differs keeps the guest at the source", async (t) => {
  const { switched, stream } = await verifying(t, (digests) => Buffer.from(digests).fill(1, 0, 1));
  await t.rejects(switched(), { code: "verify-mismatch", message: /^1 of 40 pages differ .*-physical addresses 0x0$/ });
  t.same(stream.heard, ["ack"]);
});
