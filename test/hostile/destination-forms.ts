/** What a destination that was taken over says to a source: wrong forms of each message of the protocol. */
import type { DestinationMessage } from "../../shared/protocol/stream-messages.ts";
import type { Raid } from "./hostile-destination.ts";

const FAR = Number.MAX_SAFE_INTEGER;
const U32 = 2 ** 32 - 1;
const FLOOD = 1000;
const USAGE = { agentCpuSeconds: -1e308, agentPeakMemoryBytes: FAR };
const SERVICE = { requests: FAR, medianMs: -1, p99Ms: 1e308, maxMs: 0 };

interface Form {
  readonly kind: DestinationMessage["kind"];
  readonly make: (raid: Raid) => readonly DestinationMessage[];
}
const one = (kind: DestinationMessage["kind"], make: (raid: Raid) => DestinationMessage): Form => ({
  kind,
  make: (raid) => [make(raid)],
});

export const DESTINATION_FORMS = {
  helloAgain: one("hello", ({ id, token }) => ({
    kind: "hello",
    migrationId: id,
    token,
    attempt: U32,
    received: FAR,
    generation: U32,
    restarted: true,
  })),
  ackOfMore: one("ack", ({ sequence, appliedBytes }) => ({ kind: "ack", sequence: sequence + 1000, appliedBytes })),
  ackOfEverything: one("ack", () => ({ kind: "ack", sequence: FAR, appliedBytes: FAR })),
  ackOfMoreBytes: one("ack", ({ sequence }) => ({ kind: "ack", sequence, appliedBytes: FAR })),
  repliesUnasked: {
    kind: "clockReply",
    make: () =>
      Array.from(
        { length: FLOOD },
        (_, n): DestinationMessage => ({
          kind: "clockReply",
          nonce: FAR - n,
          destinationTimeUs: n % 2 === 0 ? 0 : FAR,
        }),
      ),
  },
  digestsUnasked: one("pageDigests", () => ({
    kind: "pageDigests",
    start: FAR,
    byteLength: FAR,
    digests: Buffer.alloc(60_000),
    last: true,
  })),
  runningUnasked: one("running", () => ({ kind: "running", epoch: FAR, resumedAtUs: 0, grantedAtUs: FAR, ...USAGE })),
  everyPage: one("pageRequest", () => ({ kind: "pageRequest", firstPage: 0, pageCount: U32 })),
  pagesUnasked: one("pageRequest", () => ({ kind: "pageRequest", firstPage: 0, pageCount: 1 })),
  noPage: one("pageRequest", () => ({ kind: "pageRequest", firstPage: U32, pageCount: 0 })),
  pongUnasked: one("pong", () => ({ kind: "pong", value: U32 })),
  completeUnasked: one("complete", () => ({ kind: "complete", completedAtUs: 0, service: SERVICE, ...USAGE })),
  missingUnasked: one("missing", () => ({
    kind: "missing",
    firstPage: 0,
    pageCount: U32,
    bits: Buffer.alloc(1),
    last: true,
  })),
  loadedLying: one("loaded", () => ({ kind: "loaded", lastSequence: FAR, lastByteAtUs: 0, loadedAtUs: FAR })),
  failureEnormous: one("failure", () => ({
    kind: "failure",
    code: "two-copies",
    message: "\u001b]0;owned\u0007".repeat(10_000),
    refusedToken: Buffer.alloc(60_000),
  })),
} as const satisfies Record<string, Form>;

export type DestinationForm = keyof typeof DESTINATION_FORMS;

/** Every kind of message has a form, or this does not compile. */
type Missing = Exclude<DestinationMessage["kind"], (typeof DESTINATION_FORMS)[DestinationForm]["kind"]>;
const complete: [Missing] extends [never] ? true : Missing = true;
void complete;
