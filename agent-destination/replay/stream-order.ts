/** Checks in which order the frames come: which part of QEMU's stream they are in, and which part may follow. */
import type { Frame } from "../../shared/protocol/stream-messages.ts";
import { invalid } from "./invalid-stream.ts";

/**
 * The parts of QEMU's stream, and for each part the kinds of frames that may come next: the value is the part to which
 * such a frame belongs. A frame of any other kind is refused. Without post-copy the parts are the head, the pages and
 * the tail, so verbatim frames come only at both ends. With post-copy the parts are the head, the pages, the discards
 * with the package, the last pages, and the tail. No frame ends the part with the package: packaged() ends it, when the
 * whole package has come.
 */
const PARTS = {
  head: { verbatim: "head", pages: "pages", discards: "discards", package: "discards" },
  pages: { verbatim: "tail", pages: "pages", discards: "discards", package: "discards" },
  discards: { discards: "discards", package: "discards" },
  lastPages: { verbatim: "tail", pages: "lastPages" },
  tail: { verbatim: "tail" },
} as const satisfies Record<string, Partial<Record<Frame["frameKind"], string>>>;

type PartName = keyof typeof PARTS;
const NEXT: Readonly<Record<PartName, Partial<Record<Frame["frameKind"], PartName>>>> = PARTS;

/** Where a frame is, in words for a fault. */
const NAMES: Readonly<Record<PartName, string>> = {
  head: "at the head of QEMU's stream",
  pages: "among pages",
  discards: "between discards and package",
  lastPages: "in post-copy",
  tail: "after the end of QEMU's RAM",
};

/** Follows one stream. */
export class StreamOrder {
  /** The part that the last frame was in. */
  name: PartName = "head";

  /**
   * Enters the part of the next frame.
   * @throws MigrationFault `peer-invalid` for a frame that may not follow
   */
  enter(kind: Frame["frameKind"]): void {
    const next = NEXT[this.name][kind];
    if (next === undefined) throw invalid(`a frame of kind ${kind} ${NAMES[this.name]}`);
    this.name = next;
  }

  /** Notes that the whole package has come: the last pages follow. */
  packaged(): void {
    this.name = "lastPages";
  }
}
