/** Tests `Receiver`: what a source may ask of a destination, and when. */
import { PassThrough } from "node:stream";
import t from "tap";
import type { PostcopyPages } from "../../../agent-destination/replay/postcopy-pages.ts";
import { Receiver } from "../../../agent-destination/replay/receiver.ts";
import type { Replay } from "../../../agent-destination/replay/replay.ts";
import { MigrationFault } from "../../../shared/fault.ts";
import type { ResumingDestination } from "../../../shared/link/resume/resuming-destination.ts";
import type { SourceMessage } from "../../../shared/protocol/stream-messages.ts";
import { systemClock } from "../../../shared/runtime/clock.ts";
import { deferred } from "../../../shared/runtime/deferred.ts";
import { memoryTransfer } from "../../support/memory-link.ts";

function setUp(cancelled = new AbortController().signal, postcopy?: Pick<PostcopyPages, "isActive" | "tellMissing">) {
  const { source, destination } = memoryTransfer();
  source.receive(() => undefined);
  const replay = { sequence: 3, postcopy, drained: async () => undefined, restart: () => undefined };
  const receiver = new Receiver({
    channel: destination as unknown as ResumingDestination,
    socket: new PassThrough() as never,
    makeReplay: () => replay as unknown as Replay,
    clock: systemClock,
    cancelled,
  });
  return { receiver, source, destination };
}

t.test("a cancel ends the receiving of a guest, but not a guest that is loaded", async (t) => {
  for (const isLoaded of [false, true]) {
    const cancel = new AbortController();
    const { receiver } = setUp(cancel.signal);
    if (isLoaded) receiver.outlivesCancel();
    cancel.abort(new MigrationFault("peer-failed", "The source withdrew the migration"));
    t.equal(receiver.signal.aborted, !isLoaded);
  }
});

const verifyRequest: SourceMessage = { kind: "verifyRequest", start: 0, byteLength: 4096, last: false };

t.test(
  "digests of a guest that is not loaded, and an end after other frames than came, are refused by name",
  async (t) => {
    const lies: readonly (readonly [message: SourceMessage, text: RegExp])[] = [
      [verifyRequest, /not loaded/],
      [{ kind: "endOfStream", lastSequence: 4 }, /says that frame 4 is its last, .* came is 3$/],
    ];
    for (const [message, text] of lies) {
      const { source, destination } = setUp();
      source.send(message);
      t.match(await destination.closed, { code: "peer-invalid", message: text });
    }
  },
);

t.test("digests are made for one stretch at a time: more would take files and memory without bound", async (t) => {
  const { receiver, source, destination } = setUp();
  const answers = [deferred<void>(), deferred<void>()];
  let asked = 0;
  const second = deferred<void>();
  receiver.onVerify = () => {
    if (asked === 1) second.resolve();
    return answers[asked++]!.promise;
  };
  source.send(verifyRequest);
  answers[0]?.resolve();
  await answers[0]?.promise;
  await new Promise((resolve) => setImmediate(resolve));
  source.send(verifyRequest);
  await second.promise;
  source.send(verifyRequest);
  t.match(await destination.closed, { code: "peer-invalid", message: /while its earlier request for digests/ });
  t.equal(asked, 2);
});

t.test("for each stream that it begins again, a source may ask once which pages are missing", async (t) => {
  let told = 0;
  const { source, destination } = setUp(undefined, { isActive: true, tellMissing: () => void told++ });
  const restart = (): void => (destination as unknown as ResumingDestination).onAnew();
  for (let generation = 1; generation <= 2; generation++) {
    restart();
    source.send({ kind: "resume" });
    await new Promise((resolve) => setImmediate(resolve));
    t.equal(told, generation);
  }
  source.send({ kind: "resume" });
  t.match(await destination.closed, { code: "peer-invalid", message: /asks a second time on the same stream/ });
  t.equal(told, 2);
});
