/**
 * Tests that a peer which says nothing over a link that is up is given up, and that one which is slow or cut off is
 * not.
 */
import t from "tap";
import { unlessSilentFor } from "../../../../agent-source/migration/await-answer.ts";
import { MigrationFault } from "../../../../shared/fault.ts";
import { unlessSilent } from "../../../../shared/link/resume/peer-silence.ts";
import { deferred } from "../../../../shared/runtime/deferred.ts";
import { FakeClock } from "../../../support/fake-clock.ts";

const LIMIT_MS = 30_000;

/** Makes a wait whose time passes by `pass()` alone. */
function setUp() {
  const clock = new FakeClock();
  const peer = { heard: 0, isRead: true };
  const said = deferred<string>();
  let isSilent = false;
  const fault = new MigrationFault("peer-lost", "It says nothing");
  const tell = (): MigrationFault => {
    isSilent = true;
    return fault;
  };
  const heard = unlessSilent(said.promise, peer, LIMIT_MS, tell, clock);
  heard.catch(() => undefined);
  const pass = async (ms: number): Promise<boolean> => {
    await clock.advance(ms);
    return isSilent;
  };
  return { peer, said, heard, fault, pass };
}

t.test("a peer that says nothing over a link that is up is silent when the limit is over", async (t) => {
  const { pass } = setUp();
  t.equal(await pass(LIMIT_MS - 1), false);
  t.equal(await pass(1), true);
});

t.test("each message begins the limit again", async (t) => {
  const { peer, pass } = setUp();
  for (let message = 0; message < 5; message++) {
    t.equal(await pass(LIMIT_MS - 2000), false);
    peer.heard++;
  }
  t.equal(await pass(LIMIT_MS + 1000), true);
});

t.test("time in which nothing is read does not count as silence, and does not undo silence", async (t) => {
  const { peer, pass } = setUp();
  t.equal(await pass(LIMIT_MS / 2), false);
  peer.isRead = false;
  t.equal(await pass(10 * LIMIT_MS), false);
  peer.isRead = true;
  t.equal(await pass(LIMIT_MS / 2), true, "a peer that says nothing gains no time by the connections that it cuts");
});

t.test("the awaited value, or its fault, ends the watch", async (t) => {
  const good = setUp();
  good.said.resolve("hello");
  t.equal(await good.heard, "hello");
  t.equal(await good.pass(10 * LIMIT_MS), false);
  const bad = setUp();
  bad.said.reject(new MigrationFault("peer-failed", "It gave up"));
  await t.rejects(bad.heard, { code: "peer-failed" });
  t.equal(await bad.pass(10 * LIMIT_MS), false);
  const silent = setUp();
  await silent.pass(LIMIT_MS);
  await t.rejects(silent.heard, silent.fault);
});

t.test("a destination that answers no ping is given up while the guest runs at the source", async (t) => {
  const clock = new FakeClock();
  const session = { inbox: { heard: 0 }, channel: { isCut: false } };
  const cx = { clock, config: { link: { giveUpAfterMs: LIMIT_MS } } } as never;
  const givenUp = t.rejects(unlessSilentFor(new Promise(() => undefined), session, cx), {
    code: "peer-lost",
    message: "The destination has said nothing for 30000 ms (link.giveUpAfter), although the link to it is up",
  });
  await clock.advance(LIMIT_MS);
  await givenUp;
  session.channel.isCut = true;
  const ends = deferred<string>();
  const waits = unlessSilentFor(ends.promise, session, cx);
  await clock.advance(10 * LIMIT_MS);
  ends.resolve("it has answered");
  t.equal(await waits, "it has answered", "a link that is cut has a limit of its own");
});
