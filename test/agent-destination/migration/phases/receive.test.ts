/**
 * Tests that a source which says nothing over a link that is up loses its place, while a slow source, or one that is
 * cut off, does not.
 */
import { join } from "node:path";
import { PassThrough } from "node:stream";
import t from "tap";
import { receive } from "../../../../agent-destination/migration/phases/receive.ts";
import { Receiver } from "../../../../agent-destination/replay/receiver.ts";
import type { Replay } from "../../../../agent-destination/replay/replay.ts";
import { MigrationFault } from "../../../../shared/fault.ts";
import { deferred } from "../../../../shared/runtime/deferred.ts";
import { openLoopback } from "../../../../shared/warmup/loopback.ts";
import { eventually } from "../../../support/bounded.ts";
import { FakeClock } from "../../../support/fake-clock.ts";
import { LIMITS } from "../../../support/link.ts";
import { folder } from "../../../support/link-fixtures.ts";
import { turn } from "../../../support/sending.ts";

/** Makes a migration whose first frame has come, unless `isSilent` says that nothing has come. */
function receiving({ isSilent = false } = {}) {
  const abort = new AbortController();
  const [begun, ended, packaged] = [deferred<void>(), deferred<object>(), deferred<void>()];
  if (!isSilent) begun.resolve();
  const receiver = {
    ...{ begun, ended, packaged: packaged.promise, signal: abort.signal },
    ...{ heard: 0, isRead: true },
  };
  const state = { kind: "receiving", guest: {}, receiver } as never;
  const clock = new FakeClock();
  const cx = { clock, config: { followUpMs: 20_000, link: { keepAliveMs: 10_000 } } } as never;
  return { abort, clock, ended, packaged, done: receive(state, cx) };
}

t.test("a source that sends one frame and then nothing is given up with the reason", async (t) => {
  const { clock, done } = receiving();
  const givenUp = t.rejects(done, {
    code: "peer-lost",
    role: "source",
    // the limit is longer than followUp here, since keep-alive has to find a source that hangs first
    message: "The source has said nothing for 40000 ms (followUp), although the link to it is up",
  });
  await clock.advance(40_000);
  await givenUp;
});

t.test("a source that sends no frame at all is given up within followUp", async (t) => {
  const { clock, done } = receiving({ isSilent: true });
  const givenUp = t.rejects(done, {
    ...{ code: "peer-lost", role: "source" },
    message: "The source sent nothing within 20000 ms (followUp)",
  });
  await clock.advance(20_000);
  await givenUp;
});

t.test("post-copy's package ends this state, since the source sends pages until long after it", async (t) => {
  const { packaged, done } = receiving();
  packaged.resolve();
  t.match(await done, { kind: "loading" });
});

t.test("a fault of the stream ends this state with that fault, before the first frame and after it", async (t) => {
  for (const isSilent of [true, false]) {
    const { abort, done } = receiving({ isSilent });
    await turn();
    abort.abort(new MigrationFault("checksum-mismatch", "A frame was damaged"));
    await t.rejects(done, { code: "checksum-mismatch" });
  }
});

t.test("the end of the stream ends the watch, and the state that follows has no such limit", async (t) => {
  const { clock, ended, done } = receiving();
  ended.resolve({});
  t.match(await done, { kind: "loading" });
  t.equal(clock.pending, 0, "no timer is left");
});

t.test("over a real link a source is heard by its pings, and not by the link's own pings", async (t) => {
  const over = new AbortController();
  t.teardown(() => over.abort());
  const loopback = await openLoopback(join(folder(t), "s"), LIMITS, over.signal);
  t.teardown(() => loopback.close());
  loopback.source.receive(() => undefined);
  loopback.source.retain(1 << 20);
  const clock = new FakeClock();
  const receiver = new Receiver({
    channel: loopback.destination,
    socket: new PassThrough() as never,
    makeReplay: () => ({ isHeldBack: false, take: () => undefined }) as unknown as Replay,
    clock,
    cancelled: over.signal,
  });
  const state = { kind: "receiving", guest: {}, receiver } as never;
  const cx = { clock, config: { followUpMs: 30_000, link: { keepAliveMs: 5000 } } } as never;
  let isOver = false;
  const done = receive(state, cx).finally(() => {
    isOver = true;
  });
  done.catch(() => undefined);
  const body = new Uint8Array(8);
  const frame = { frameKind: "verbatim", codec: "none", rawLength: 8, checksum: new Uint8Array(8), body } as const;
  loopback.source.send({ kind: "frame", sequence: 1, ...frame });
  for (let nonce = 0; nonce < 100; nonce++) {
    const { heard } = receiver;
    loopback.source.send({ kind: "clockPing", nonce });
    await eventually(() => receiver.heard > heard || undefined, { timeoutMs: 60_000, everyMs: 1, what: "the ping" });
    await clock.advance(1000);
  }
  t.equal(isOver, false, "a hundred seconds of nothing but pings do not end it");
  const givenUp = t.rejects(done, { code: "peer-lost", message: /said nothing for 30000 ms/ });
  await clock.advance(30_000);
  await givenUp;
  t.equal(loopback.destination.isCut, false, "the link is up");
  receiver.close();
});
