/** Tests the client of QEMU's monitor with a peer that is no monitor, or that lies. */
import fc from "fast-check";
import t, { type Test } from "tap";
import type { FaultCode } from "../../shared/fault.ts";
import { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import { LINE_MAX_BYTES, QmpLines, type QmpMessage } from "../../shared/qemu/qmp/qmp-lines.ts";
import { greeting, Monitor, serve } from "../support/fake-monitor.ts";
import {
  codeOf,
  deepJson,
  FILE_MS,
  forAWhile,
  forAWhileAsync,
  hostileObject,
  named,
  spoiled,
} from "../support/hostile.ts";

t.setTimeout(FILE_MS);

const GREETING = greeting();
const CODES: readonly FaultCode[] = ["qmp-protocol", "qmp-command", "qmp-disconnected", "qmp-timeout"];

const messages = [
  GREETING,
  { return: { status: "running" }, id: 2 },
  { error: { class: "GenericError", desc: "No such" }, id: 2 },
  { event: "STOP", data: { x: "Zürich €" }, timestamp: { seconds: 3, microseconds: 4 } },
];
const lines = messages.map((one) => Buffer.from(`${JSON.stringify(one)}\r\n`));

function read(pieces: readonly Uint8Array[]): { seen: QmpMessage[]; code: FaultCode | undefined } {
  const reader = new QmpLines();
  const seen: QmpMessage[] = [];
  const code = named(["qmp-protocol"], () => {
    for (const piece of pieces) reader.push(piece, (message) => seen.push(message));
  });
  return { seen, code };
}

t.test("the lines of a monitor are read the same wherever they are cut", async (t) => {
  const all = Buffer.concat(lines);
  for (let cut = 0; cut <= all.length; cut++)
    t.same(read([all.subarray(0, cut), all.subarray(cut)]), { seen: messages, code: undefined }, `at ${cut}`);
  t.same(read([...all].map((byte) => Uint8Array.of(byte))).seen, messages);
});

t.test("spoiled lines are read as messages or refused by name, wherever they are cut", async () => {
  const given = fc.oneof(spoiled([Buffer.concat(lines)]), fc.uint8Array({ maxLength: 80 }));
  forAWhile(fc.tuple(given, fc.nat(400)), ([bytes, cut]) => {
    const whole = read([bytes]);
    const at = cut % (bytes.length + 1);
    const pieces = read([bytes.subarray(0, at), bytes.subarray(at)]);
    if (JSON.stringify(whole) !== JSON.stringify(pieces)) throw new Error(`another reading when cut at ${at}`);
  });
});

t.test("a line without an end is given up at its limit, and takes no more memory than that", async (t) => {
  const reader = new QmpLines();
  const piece = new Uint8Array(1 << 20).fill(0x20);
  const before = process.memoryUsage().arrayBuffers;
  let pushed = 0;
  t.throws(
    () => {
      for (; pushed < 100; pushed++) reader.push(piece, () => undefined);
    },
    { code: "qmp-protocol", message: `QEMU's monitor sent a line of more than ${LINE_MAX_BYTES} bytes` },
  );
  t.equal(pushed, LINE_MAX_BYTES / piece.length);
  t.ok(process.memoryUsage().arrayBuffers - before < 4 * LINE_MAX_BYTES);
});

/**
 * Connects a client to a monitor and asks it for the status.
 * @param path gives the path of the monitor's socket
 * @returns the status, or the code of the fault, which must be one of CODES
 */
async function ask(t: Test, path: () => Promise<string>): Promise<unknown> {
  try {
    const qmp = await QmpClient.connect(await path(), { timeoutMs: 20_000 });
    t.teardown(() => qmp.close());
    const events: unknown[] = [];
    qmp.subscribe(({ event, data, timestampUs }) => {
      if (typeof event !== "string" || typeof data !== "object" || !Number.isFinite(timestampUs))
        throw new TypeError("an event that is none");
      events.push(data.status);
    });
    const { status } = await qmp.execute("query-status", undefined, { timeoutMs: 20_000 });
    qmp.close();
    return status;
  } catch (thrown) {
    return codeOf(thrown, CODES);
  }
}

t.test("whatever a monitor answers, a call ends with its answer or with a named fault", async (t) => {
  let answer: Buffer = Buffer.alloc(0);
  let greeting: Buffer = lines[0]!;
  const path = await serve(t, (socket) => {
    const monitor = new Monitor(socket, () => {
      monitor.raw(answer);
      socket.end();
    });
    monitor.raw(greeting);
  });
  const objects = fc
    .constantFrom(...messages)
    .chain((one) => hostileObject(one))
    .map((one) => Buffer.from(`${JSON.stringify(one)}\r\n`));
  const bytes = fc.oneof(objects, objects, spoiled(lines), fc.uint8Array({ maxLength: 60 }));
  await forAWhileAsync(
    fc.tuple(fc.array(bytes, { maxLength: 4 }), fc.option(bytes, { freq: 3 })),
    async ([answers, first]) => {
      answer = Buffer.concat(answers);
      greeting = first === null ? lines[0]! : Buffer.concat([first, lines[0]!]);
      await ask(t, async () => path);
    },
  );
});

/** In an answer below, this stands for the id of the command. */
const ASKED = "asked";
const isAsked = (answer: unknown): answer is object =>
  typeof answer === "object" && answer !== null && "id" in answer && answer.id === ASKED;

t.test("an answer that makes no sense is refused with a message that says what was wrong", async (t) => {
  const answers: readonly (readonly [answer: unknown, code: FaultCode, message: RegExp])[] = [
    [{ return: null, id: ASKED }, "qmp-protocol", /answered query-status with null/],
    [{ QMP: null }, "qmp-protocol", /greeting has no version/],
    [{ error: null, id: ASKED }, "qmp-command", /QEMU refused query-status/],
    [{ error: { class: {}, desc: "x".repeat(1 << 20) }, id: ASKED }, "qmp-command", /x…/],
    [{ ["y".repeat(1 << 20)]: 1 }, "qmp-protocol", /y…/],
    [[], "qmp-protocol", /neither answer nor event/],
  ];
  let answer: unknown;
  const path = await serve(t, (socket) => {
    const monitor = new Monitor(socket, ({ id }) => monitor.reply(isAsked(answer) ? { ...answer, id } : answer));
    monitor.reply(GREETING);
  });
  for (const [given, code, message] of answers) {
    answer = given;
    const qmp = await QmpClient.connect(path);
    const fault = await qmp.execute("query-status").then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    t.match(fault, { code, message });
    t.ok(fault instanceof Error && fault.message.length < 3000);
    qmp.close();
  }
});

t.test("answers to no command, events without fields and deeply nested values do no harm", async (t) => {
  const path = await serve(t, (socket) => {
    const monitor = new Monitor(socket, ({ id }) => {
      for (const unknown of [99, -1, 1e300]) monitor.reply({ return: {}, id: unknown });
      monitor.reply({ event: "STOP" });
      monitor.reply({ event: "STOP", data: null, timestamp: null });
      monitor.reply({ event: "STOP", data: 7, timestamp: { seconds: "x", microseconds: {} } });
      monitor.raw(`{"event": "DEEP", "data": {"x": ${deepJson(100_000)}}}\r\n`);
      monitor.reply({ return: { status: "running", running: true }, id });
    });
    monitor.reply(GREETING);
  });
  const qmp = await QmpClient.connect(path);
  t.teardown(() => qmp.close());
  const seen: unknown[] = [];
  qmp.subscribe(({ event, data, timestampUs }) => seen.push([event, event === "DEEP" ? {} : data, timestampUs]));
  t.equal((await qmp.execute("query-status")).status, "running");
  const stop = ["STOP", {}, 0];
  t.same(seen, [stop, stop, stop, ["DEEP", {}, 0]]);
});
