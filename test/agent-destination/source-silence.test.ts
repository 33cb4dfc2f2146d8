/** A source that says nothing over a link that is up loses its place; a slow one, and one that is cut off, does not. */
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { mock } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import t, { type Test } from "tap";
import { receive } from "../../agent-destination/phases/receive.ts";
import { Receiver } from "../../agent-destination/receiver.ts";
import type { Replay } from "../../agent-destination/replay.ts";
import { onceSilent } from "../../agent-destination/source-silence.ts";
import { openLoop } from "../../shared/link/loop.ts";
import { systemClock } from "../../shared/runtime/clock.ts";
import { deferred } from "../../shared/runtime/deferred.ts";
import { LIMITS } from "../support/link.ts";
import { folder } from "../support/link-fixtures.ts";

const LIMIT_MS = 30_000;

/** A watch whose time passes by `pass()` alone. */
function setUp(t: Test) {
  mock.timers.enable({ apis: ["setInterval"] });
  t.teardown(() => mock.timers.reset());
  const over = new AbortController();
  const source = { heard: 0, channel: { isCut: false }, replay: { isHeldBack: false } };
  let isSilent = false;
  void onceSilent(source as never, LIMIT_MS, over.signal).then(() => {
    isSilent = true;
  });
  const pass = async (ms: number): Promise<boolean> => {
    mock.timers.tick(ms);
    await Promise.resolve();
    return isSilent;
  };
  return { source, over, pass };
}

t.test("a link that is up and brings nothing is silent when the limit is over", async (t) => {
  const { pass } = setUp(t);
  t.equal(await pass(LIMIT_MS - 1), false);
  t.equal(await pass(1), true);
});

t.test("any message begins the limit anew", async (t) => {
  const { source, pass } = setUp(t);
  for (let message = 0; message < 5; message++) {
    t.equal(await pass(LIMIT_MS - 2000), false);
    source.heard++;
  }
  t.equal(await pass(LIMIT_MS + 1000), true);
});

t.test("a cut, and a QEMU here that takes nothing, are no silence, and forgive none", async (t) => {
  const { source, pass } = setUp(t);
  t.equal(await pass(LIMIT_MS / 2), false);
  source.channel.isCut = true;
  t.equal(await pass(10 * LIMIT_MS), false);
  source.channel.isCut = false;
  source.replay.isHeldBack = true;
  t.equal(await pass(10 * LIMIT_MS), false);
  source.replay.isHeldBack = false;
  t.equal(await pass(LIMIT_MS / 2), true, "a source that says nothing gains no time by connections that it cuts");
});

t.test("a watch that is over ends nothing", async (t) => {
  const { over, pass } = setUp(t);
  over.abort();
  t.equal(await pass(10 * LIMIT_MS), false);
});

/** A migration whose first frame has come. */
function receiving() {
  const abort = new AbortController();
  const [begun, ended, packaged] = [deferred<void>(), deferred<object>(), deferred<void>()];
  begun.resolve();
  const receiver = {
    ...{ begun, ended, packaged: packaged.promise, signal: abort.signal },
    ...{ heard: 0, channel: { isCut: false }, replay: { isHeldBack: false } },
  };
  const state = { kind: "receiving", guest: {}, receiver } as never;
  return { ended, done: receive(state, { config: { followUpMs: 20, link: { keepAliveMs: 10 } } } as never) };
}

t.test("a source that sends one frame and then nothing is given up by name", async (t) => {
  await t.rejects(receiving().done, {
    code: "peer-lost",
    role: "source",
    // longer than followUp here, since keep-alive has to find a source that hangs first
    message: "The source has said nothing for 40 ms (followUp), although the link to it is up",
  });
});

t.test("the end of the stream ends the watch, and what follows has no such limit", async (t) => {
  const { ended, done } = receiving();
  ended.resolve({});
  t.match(await done, { kind: "loading" });
});

t.test("a source is heard by its pings, over a real link, and not by the link's own", async (t) => {
  const over = new AbortController();
  t.teardown(() => over.abort());
  const loop = await openLoop(join(folder(t), "s"), LIMITS, over.signal);
  t.teardown(() => loop.close());
  loop.source.receive(() => undefined);
  loop.source.retain(1 << 20);
  const receiver = new Receiver({
    channel: loop.destination,
    socket: new PassThrough() as never,
    makeReplay: () => ({ isHeldBack: false, take: () => undefined }) as unknown as Replay,
    clock: systemClock,
    cancelled: over.signal,
  });
  const state = { kind: "receiving", guest: {}, receiver } as never;
  const cx = { config: { followUpMs: 3000, link: { keepAliveMs: 500 } } } as never;
  let isOver = false;
  const done = receive(state, cx).finally(() => {
    isOver = true;
  });
  done.catch(() => undefined);
  const body = new Uint8Array(8);
  const frame = { frameKind: "verbatim", codec: "none", rawLength: 8, checksum: new Uint8Array(8), body } as const;
  loop.source.send({ kind: "frame", sequence: 1, ...frame });
  for (let nonce = 0; nonce < 100; nonce++) {
    loop.source.send({ kind: "clockPing", nonce });
    await delay(40);
  }
  t.equal(isOver, false, "four seconds of nothing but pings");
  await t.rejects(done, { code: "peer-lost", message: /said nothing for 3000 ms/ });
  t.equal(loop.destination.isCut, false, "the link is up");
  receiver.close();
});
