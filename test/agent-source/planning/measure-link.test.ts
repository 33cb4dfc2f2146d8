/** Tests the measurement of a link over real gRPC: the source's end of it and the destination's. */
import t, { type Test } from "tap";
import { answerProbe } from "../../../agent-destination/link/probe-responder.ts";
import { measureLink } from "../../../agent-source/planning/measure-link.ts";
import { MigrationFault } from "../../../shared/fault.ts";
import { serveSource } from "../../../shared/link/grpc/grpc-server.ts";
import { ResumingSource } from "../../../shared/link/resume/resuming-source.ts";
import { SystemClock } from "../../../shared/runtime/clock.ts";
import { deferred } from "../../../shared/runtime/deferred.ts";
import { createLogger } from "../../../shared/runtime/log/log.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import { offer as plainOffer } from "../../support/handshake-fixtures.ts";
import { LIMITS, SERVE, sourceService } from "../../support/link.ts";
import { memoryTransfer } from "../../support/memory-link.ts";

const clock = new SystemClock();
const log = createLogger("test", "silent");

async function opened(t: Test) {
  const link = new ResumingSource({ patienceMs: 1000, peer: "the destination" });
  const arrived = deferred<void>();
  const listener = await serveSource(
    sourceService({
      acceptTransfer: (hello, channel) => {
        link.attach(hello, channel);
        arrived.resolve();
      },
    }),
    SERVE,
  );
  t.teardown(() => listener.close(0));
  const leaving = new AbortController();
  const offer = { ...plainOffer, migrationId: "m-1", token: Buffer.alloc(16, 1), sourceAddress: listener.address };
  const answered = answerProbe(offer, { limits: LIMITS, clock, log, leaving: leaving.signal });
  await arrived.promise;
  return { link, answered, leaving };
}
const never = (): AbortSignal => new AbortController().signal;

t.test("a link is measured, and both ends are done with it afterwards", async (t) => {
  const { link, answered } = await opened(t);
  const { bytesPerSecond, roundTripMs } = await measureLink(link, clock, never());
  t.ok(bytesPerSecond > 1e6, `${(bytesPerSecond / 1e6).toFixed(0)} MB/s over the loopback`);
  t.ok(roundTripMs > 0 && roundTripMs < 20_000, `${roundTripMs} ms`);
  await answered;
  t.equal(await link.closed, undefined, "the stream was closed in order");
});

t.test("a destination that leaves ends the measurement with the reason", async (t) => {
  const { link, answered, leaving } = await opened(t);
  const measured = measureLink(link, clock, never());
  leaving.abort(new MigrationFault("stopping", "The agent is being stopped"));
  await t.rejects(measured, { code: "peer-failed", message: /The agent is being stopped/ });
  await answered;
});

t.test("a destination that does not answer is given up after 10 s", async (t) => {
  const fake = new FakeClock();
  const { source } = memoryTransfer();
  const late = t.rejects(measureLink(source, fake, never()), {
    ...{ code: "peer-lost", message: "The link could not be measured within 10000 ms" },
  });
  await fake.advance(10_000);
  await late;
  t.equal(fake.pending, 0);
});

t.test("a measurement that is called off ends at once", async (t) => {
  const { link, answered } = await opened(t);
  const cancel = new AbortController();
  const measured = measureLink(link, clock, cancel.signal);
  cancel.abort(new Error("given up"));
  await t.rejects(measured, /given up/);
  await answered;
});

t.test("a destination that only answers probes ends the stream at a message of a migration", async (t) => {
  const { link, answered } = await opened(t);
  link.receive(() => undefined);
  link.send({ kind: "layout", blocks: [], ramSectionId: 1 });
  await answered;
  t.pass("the destination has ended the stream");
  link.close();
});

t.test("a destination that cannot dial the source's address gives up without a rejection", async (t) => {
  for (const sourceAddress of ["bogus", "192.0.2.1:7411", "unix:/a\nb"]) {
    const offer = { ...plainOffer, migrationId: "m-1", token: Buffer.alloc(16, 1), sourceAddress };
    await t.resolves(answerProbe(offer, { limits: LIMITS, clock, log, leaving: never() }), sourceAddress);
  }
});
