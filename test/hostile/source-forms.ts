/** What a source that was taken over says to a destination: wrong forms of each message of the protocol. */
import type { SourceMessage } from "../../shared/protocol/stream-messages.ts";
import { PAGE_SIZE } from "../../shared/units.ts";
import { BLOCKS, FRAME_BYTES, frame, pages, SECTION, squeezed } from "../support/frames.ts";
import type { Attack } from "./hostile-source.ts";

const FAR = Number.MAX_SAFE_INTEGER;
const U32 = 2 ** 32 - 1;
const zeroes = (count: number): Buffer => pages((writer) => writer.zeroRun(0, count));
/** How many cheap messages a flood has. */
const FLOOD = 2000;
const flood = (message: (count: number) => SourceMessage): readonly SourceMessage[] =>
  Array.from({ length: FLOOD }, (_, count) => message(count));
const longName = (index: number): string => `${index}`.padEnd(256, "\u001b[2J");
const NOBODY = Buffer.alloc(16, 1);

interface Form {
  readonly kind: SourceMessage["kind"];
  readonly make: (attack: Attack) => readonly SourceMessage[];
}
const one = (kind: SourceMessage["kind"], make: (attack: Attack) => SourceMessage): Form => ({
  kind,
  make: (attack) => [make(attack)],
});

export const SOURCE_FORMS = {
  frameOutOfSequence: one("frame", ({ sequence }) => frame(sequence + 5, zeroes(1))),
  frameAgain: one("frame", ({ sequence }) => frame(Math.max(1, sequence), zeroes(1))),
  frameZero: one("frame", () => frame(0, zeroes(1))),
  frameOfTheLastNumber: one("frame", () => frame(FAR, zeroes(1))),
  frameDamaged: one("frame", ({ sequence }) => frame(sequence + 1, zeroes(1), { checksum: Buffer.alloc(8, 1) })),
  frameThatClaims: one("frame", ({ sequence }) => frame(sequence + 1, zeroes(1), { rawLength: U32 })),
  frameEmpty: one("frame", ({ sequence }) => frame(sequence + 1, Buffer.alloc(0))),
  frameTooLong: one("frame", ({ sequence }) => frame(sequence + 1, Buffer.alloc(4 * FRAME_BYTES))),
  frameOfNoPages: one("frame", ({ sequence }) => frame(sequence + 1, zeroes(100_000))),
  frameOfGarbage: one("frame", ({ sequence }) => frame(sequence + 1, Buffer.alloc(500, 0xff))),
  frameSqueezedGarbage: one("frame", ({ sequence }) =>
    squeezed(sequence + 1, zeroes(1), { body: Buffer.alloc(500, 0xff) }),
  ),
  frameOfPackage: one("frame", ({ sequence }) =>
    frame(sequence + 1, Buffer.from([4, 0, 0, 0, 1, 2, 3, 4]), { frameKind: "package" }),
  ),
  frameOfDiscards: one("frame", ({ sequence }) => frame(sequence + 1, Buffer.alloc(8), { frameKind: "discards" })),
  layoutAgain: one("layout", () => ({ kind: "layout", blocks: BLOCKS, ramSectionId: SECTION })),
  layoutOfOthers: one("layout", () => ({
    kind: "layout",
    blocks: [{ name: "other", byteLength: FAR, pageSize: 0 }],
    ramSectionId: U32,
  })),
  layoutEnormous: one("layout", () => ({
    kind: "layout",
    blocks: Array.from({ length: 900 }, (_, index) => ({
      name: longName(index),
      byteLength: FAR,
      pageSize: PAGE_SIZE,
    })),
    ramSectionId: SECTION,
  })),
  layoutOfNothing: one("layout", () => ({ kind: "layout", blocks: [], ramSectionId: 0 })),
  welcomeAgain: one("welcome", () => ({ kind: "welcome", received: 0, generation: 0 })),
  welcomeLying: one("welcome", () => ({ kind: "welcome", received: FAR, generation: 0 })),
  welcomeAnew: one("welcome", () => ({ kind: "welcome", received: 0, generation: U32 })),
  resume: one("resume", () => ({ kind: "resume" })),
  resumes: { kind: "resume", make: () => flood(() => ({ kind: "resume" })) },
  probes: {
    kind: "probe",
    make: () => flood(() => ({ kind: "probe", sequence: FAR, padding: Buffer.alloc(16) })),
  },
  pings: { kind: "clockPing", make: () => flood((count) => ({ kind: "clockPing", nonce: FAR - count })) },
  endOfMore: one("endOfStream", ({ sequence }) => ({ kind: "endOfStream", lastSequence: sequence + 1 })),
  endOfEverything: one("endOfStream", () => ({ kind: "endOfStream", lastSequence: FAR })),
  digestsOfEverything: one("verifyRequest", () => ({
    kind: "verifyRequest",
    start: 0,
    byteLength: FAR - 4095,
    last: true,
  })),
  digestsOfNoPage: one("verifyRequest", () => ({ kind: "verifyRequest", start: FAR, byteLength: 1, last: false })),
  grantOfAnother: one("grant", () => ({ kind: "grant", token: NOBODY, epoch: 1, paused: false })),
  grantOfAnotherEpoch: one("grant", ({ token }) => ({ kind: "grant", token, epoch: FAR, paused: false })),
  grantOfNothing: one("grant", () => ({ kind: "grant", token: Buffer.alloc(0), epoch: 0, paused: true })),
  failureEnormous: one("failure", () => ({
    kind: "failure",
    code: "\u001b[31m".repeat(1000),
    message: "\u001b]0;owned\u0007".repeat(10_000),
    refusedToken: Buffer.alloc(60_000),
  })),
} as const satisfies Record<string, Form>;

export type SourceForm = keyof typeof SOURCE_FORMS;

/** Every kind of message has a form, or this does not compile. */
type Missing = Exclude<SourceMessage["kind"], (typeof SOURCE_FORMS)[SourceForm]["kind"]>;
const complete: [Missing] extends [never] ? true : Missing = true;
void complete;
