/** Tests what `PeerInbox` does with the messages of a destination that lies. */
import t from "tap";
import { LinkMeter } from "../../../agent-source/link/link-meter.ts";
import { PeerInbox } from "../../../agent-source/link/peer-inbox.ts";
import type { MigrationFault } from "../../../shared/fault.ts";
import type { DestinationMessage } from "../../../shared/protocol/stream-messages.ts";
import { systemClock } from "../../../shared/runtime/clock.ts";
import { memoryTransfer } from "../../support/memory-link.ts";

function setUp() {
  const { source, destination } = memoryTransfer();
  destination.receive(() => undefined);
  const faults: MigrationFault[] = [];
  const inbox = new PeerInbox(source, new LinkMeter(), systemClock, (fault) => faults.push(fault));
  return { inbox, source, destination, faults };
}

const lies: readonly (readonly [title: string, message: DestinationMessage, text: RegExp])[] = [
  [
    "a second hello",
    {
      kind: "hello",
      migrationId: "m",
      token: Buffer.alloc(16),
      attempt: 1,
      received: 0,
      generation: 0,
      restarted: false,
    },
    /introduced itself twice/,
  ],
  [
    "a guest that runs without a grant",
    { kind: "running", epoch: 1, resumedAtUs: 1, grantedAtUs: 1, agentCpuSeconds: 0, agentPeakMemoryBytes: 0 },
    /without a grant/,
  ],
];
for (const [title, message, text] of lies)
  t.test(`${title} ends the transfer with a fault that names it`, async (t) => {
    const { source, destination } = setUp();
    destination.send(message);
    t.match(await source.closed, { code: "peer-invalid", message: text });
  });

t.test("answers to questions that were not asked are ignored", async (t) => {
  const { source, destination, inbox } = setUp();
  destination.send({ kind: "pageDigests", start: 7, byteLength: 4096, digests: Buffer.alloc(16), last: false });
  destination.send({ kind: "clockReply", nonce: 99, destinationTimeUs: 2 ** 53 - 1 });
  destination.send({ kind: "ack", sequence: 2 ** 40, appliedBytes: 0 });
  const asked = inbox.askDigests(0, 4096, true);
  destination.send({ kind: "pageDigests", start: 0, byteLength: 4096, digests: Buffer.alloc(3), last: false });
  t.match(await asked, { start: 0 });
  source.close();
  destination.close();
  t.equal(await source.closed, undefined);
});
