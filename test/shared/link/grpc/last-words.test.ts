/** Tests what a destination does about its last word, and about a source that does not let it in. */
import t, { type Test } from "tap";
import { MigrationFault } from "../../../../shared/fault.ts";
import type { DestinationChannel, SourceChannel } from "../../../../shared/link/link.ts";
import { ResumingDestination } from "../../../../shared/link/resume/resuming-destination.ts";
import type { DestinationMessage } from "../../../../shared/protocol/stream-messages.ts";
import { bounded, eventually } from "../../../support/bounded.ts";
import { memoryTransfer } from "../../../support/memory-link.ts";

const WITHIN = { timeoutMs: 60_000, everyMs: 2 };
const FAILURE = { kind: "failure", code: "internal", message: "no", refusedToken: new Uint8Array() } as const;

function dialler(t: Test, dial: () => DestinationChannel, patienceMs = 60_000): ResumingDestination {
  const token = Uint8Array.of(1);
  const destination = new ResumingDestination({ patienceMs, peer: "source", migrationId: "m-1", token, dial });
  destination.receive(() => undefined);
  t.teardown(() => destination.close(new MigrationFault("cancelled", "the test is over")));
  return destination;
}

t.test("a destination gives up a last word that the source does not take, and waits no longer", async (t) => {
  const sources: SourceChannel[] = [];
  const dial = (): DestinationChannel => {
    const made = memoryTransfer();
    // the first connection is let in, and the others are not answered
    if (sources.push(made.source) === 1)
      made.source.receive(() => made.source.send({ kind: "welcome", received: 0, generation: 0 }));
    return made.destination;
  };
  const destination = dialler(t, dial, 300);
  await eventually(() => !destination.isCut || undefined, { ...WITHIN, what: "the connection" });
  destination.send(FAILURE);
  destination.close();
  sources[0]?.close(new MigrationFault("peer-lost", "cut"));
  t.equal(await bounded(destination.closed, WITHIN.timeoutMs, "the end"), undefined);
  t.equal(sources.length, 2, "the destination has tried again");
});

t.test("a stream that is replaced by another one says its last word where it can, and dials no more", async (t) => {
  let dials = 0;
  const arrived: DestinationMessage[] = [];
  const ends: SourceChannel[] = [];
  const destination = dialler(t, () => {
    dials++;
    const made = memoryTransfer();
    ends.push(made.source);
    made.source.receive((message) => {
      if (message.kind === "hello") made.source.send({ kind: "welcome", received: 0, generation: 0 });
      else arrived.push(message);
    });
    return made.destination;
  });
  await eventually(() => !destination.isCut || undefined, { ...WITHIN, what: "the connection" });
  destination.send(FAILURE);
  destination.leave();
  t.equal(await bounded(destination.closed, WITHIN.timeoutMs, "the end"), undefined);
  t.same(arrived, [FAILURE]);
  const second = dialler(t, () => {
    dials++;
    return memoryTransfer().destination;
  });
  second.send(FAILURE);
  second.leave();
  t.equal(await bounded(second.closed, WITHIN.timeoutMs, "the end of one that is not connected"), undefined);
  t.equal(dials, 2, "each stream has dialled once");
});

t.test("a peer that may not be called any more is called again if the two have met before", async (t) => {
  for (const code of ["peer-untrusted", "not-authorised"] as const) {
    const dialled: SourceChannel[] = [];
    const destination = dialler(t, () => {
      const made = memoryTransfer();
      const turn = dialled.push(made.source);
      made.source.receive(() => {
        if (turn === 2) throw new MigrationFault(code, "The certificate has expired");
        made.source.send({ kind: "welcome", received: 0, generation: 0 });
      });
      return made.destination;
    });
    await eventually(() => !destination.isCut || undefined, { ...WITHIN, what: "the connection" });
    dialled[0]?.close(new MigrationFault("peer-lost", "cut"));
    const renewed = (): true | undefined => (dialled.length === 3 && !destination.isCut) || undefined;
    await eventually(renewed, { ...WITHIN, what: "a connection with a new certificate" });
  }
});

t.test("a peer that may not be called from the first is not called again", async (t) => {
  for (const code of ["peer-untrusted", "not-authorised"] as const) {
    let dials = 0;
    const destination = dialler(t, () => {
      dials++;
      const made = memoryTransfer();
      made.source.receive(() => {
        throw new MigrationFault(code, "The certificate has expired");
      });
      return made.destination;
    });
    t.match(await bounded(destination.closed, WITHIN.timeoutMs, "the refusal"), { code });
    t.equal(dials, 1);
  }
});
