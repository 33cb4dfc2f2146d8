/** Tests the connection of `Intake` with QEMU: how it begins and ends, when it is read, and what it says to QEMU. */
import { existsSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import t, { type Test } from "tap";
import { Intake, type StreamParser } from "../../../agent-source/capture/intake.ts";
import { MigrationFault } from "../../../shared/fault.ts";
import { encodePong, encodeShut, encodeSwitchoverAck } from "../../../shared/qemu/return-path/return-path.ts";
import { address } from "../../../shared/units.ts";
import { bounded, eventually } from "../../support/bounded.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import { folder } from "../../support/link-fixtures.ts";
import { turn } from "../../support/sending.ts";

const WINDOW_BYTES = 1 << 20;

/** Takes all bytes as one text, or none of them while it is full. */
class TextParser implements StreamParser {
  readonly needs = 1;
  text = "";
  full = false;
  private readonly memory: Uint8Array;

  constructor(memory: Uint8Array) {
    this.memory = memory;
  }
  get stopped(): boolean {
    return this.full;
  }
  consume(start: number, end: number): number {
    if (this.full) return start;
    const piece = Buffer.from(this.memory.subarray(start, end)).toString();
    if (piece.includes("rubbish")) throw new MigrationFault("stream-invalid", "That is no stream");
    this.text += piece;
    return end;
  }
}

async function listening(t: Test) {
  const memory = new Uint8Array(WINDOW_BYTES);
  const parser = new TextParser(memory);
  const clock = new FakeClock();
  const faults: MigrationFault[] = [];
  const onFault = (fault: MigrationFault): void => void faults.push(fault);
  const intake = new Intake({
    ...{ memory, window: address(0), windowBytes: WINDOW_BYTES, reader: parser, clock, onFault },
  });
  const path = join(folder(t), "stream");
  await intake.listen(path);
  t.teardown(() => intake.close());
  const until = async (what: string, isSo: () => boolean): Promise<void> => {
    await eventually(() => (isSo() ? true : undefined), { timeoutMs: 20_000, everyMs: 1, what });
  };
  return { intake, parser, clock, faults, path, until };
}

async function connected(t: Test) {
  const rig = await listening(t);
  const done = rig.intake.connected(new AbortController().signal);
  const qemu = connect(rig.path);
  t.teardown(() => qemu.destroy());
  await done;
  return { ...rig, qemu };
}

/** Writes a text, and waits until the kernel has taken it. */
const write = (qemu: Socket, text: string): Promise<void> =>
  new Promise((resolve) => qemu.write(text, () => resolve()));

t.test("a QEMU that does not connect within 10 s is a fault", async (t) => {
  const { intake, clock } = await listening(t);
  const late = t.rejects(intake.connected(new AbortController().signal), {
    ...{ code: "qemu-failed", message: /did not connect to .*stream within 10000 ms/ },
  });
  await clock.advance(10_000);
  await late;
  t.equal(clock.pending, 0);
});

t.test("a wait for QEMU's connection ends with the fault of a migration that is cancelled", async (t) => {
  const { intake, clock } = await listening(t);
  const cancelled = new AbortController();
  const waits = t.rejects(intake.connected(cancelled.signal), { code: "cancelled" });
  cancelled.abort(new MigrationFault("cancelled", "by the operator"));
  await waits;
  t.equal(clock.pending, 0);
});

t.test("a stream that is held is neither read nor parsed until it is released", async (t) => {
  const { intake, parser, qemu, clock, until } = await connected(t);
  t.equal(clock.pending, 0, "the connection has come in time");
  await write(qemu, "one ");
  await until("the first bytes", () => parser.text === "one ");
  intake.hold();
  await write(qemu, "two ");
  intake.resume();
  for (let turns = 0; turns < 20; turns++) await turn();
  t.equal(parser.text, "one ");
  intake.release();
  await until("the bytes that were held", () => parser.text === "one two ");
  t.equal(intake.bytesRead, 8);
});

t.test("bytes that the sink has not taken are offered again when it has room, before more is read", async (t) => {
  const { intake, parser, qemu, until } = await connected(t);
  parser.full = true;
  await write(qemu, "one ");
  await until("the first bytes", () => intake.bytesRead === 4);
  await write(qemu, "two ");
  for (let turns = 0; turns < 20; turns++) await turn();
  t.equal(intake.bytesRead, 4);
  parser.full = false;
  intake.resume();
  t.equal(parser.text, "one ");
  await until("the bytes behind them", () => parser.text === "one two ");
});

t.test("QEMU hears acknowledgement, answers and SHUT in the order in which they were said", async (t) => {
  const { intake, qemu, until } = await connected(t);
  let heard = Buffer.alloc(0);
  qemu.on("data", (bytes) => {
    heard = Buffer.concat([heard, bytes]);
  });
  intake.acknowledgeSwitchover();
  intake.answer(encodePong(7));
  intake.shut();
  const due = Buffer.concat([encodeSwitchoverAck(), encodePong(7), encodeShut(0)]);
  await until("all of the return path", () => heard.length >= due.length);
  t.same(heard, due);
});

t.test("a stream that QEMU ends or breaks is one fault", async (t) => {
  for (const end of ["end", "destroy"] as const) {
    const { faults, qemu, until } = await connected(t);
    qemu[end]();
    await until("the fault", () => faults.length > 0);
    t.match(faults, [{ code: "qemu-failed", message: /QEMU (ended|closed) its migration stream/ }]);
  }
});

t.test("bytes that are no stream are a fault, and QEMU's socket is closed", async (t) => {
  const { faults, qemu, until } = await connected(t);
  const closed = new Promise((resolve) => qemu.once("close", resolve));
  qemu.on("error", () => undefined);
  qemu.write("rubbish");
  await until("the fault", () => faults.length > 0);
  await bounded(closed, 20_000, "the end of QEMU's socket");
  t.match(faults, [{ code: "stream-invalid" }]);
});

t.test("after SHUT, or once the intake is closed, the end of the stream is no fault", async (t) => {
  const shut = await connected(t);
  shut.intake.shut();
  await new Promise<void>((resolve) => shut.qemu.once("data", () => resolve()));
  shut.qemu.end();
  await bounded(new Promise((resolve) => shut.qemu.once("close", resolve)), 20_000, "the end of the stream");
  t.same(shut.faults, []);
  const { intake, qemu, path, faults } = await connected(t);
  const closed = new Promise((resolve) => qemu.once("close", resolve));
  await intake.close();
  qemu.resume();
  await bounded(closed, 20_000, "the end of QEMU's socket");
  t.same(faults, []);
  t.notOk(existsSync(path));
});

t.test("a path at which nobody can listen is a fault of the configuration", async (t) => {
  const { intake } = await listening(t);
  await intake.close();
  await t.rejects(intake.listen(join(folder(t), "missing", "stream")), {
    ...{ code: "configuration", message: /Cannot listen at .*missing/ },
  });
});
