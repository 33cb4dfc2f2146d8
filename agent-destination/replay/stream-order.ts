/** In which part of QEMU's stream the frames are, and which may follow. */
import type { Frame } from "../../shared/protocol/messages.ts";
import { invalid } from "./invalid-stream.ts";

/**
 * QEMU's stream is a head, pages, and a tail: verbatim frames stand only at its ends. Of post-copy it is a head, pages,
 * discards and the package, the last pages, and a tail. The package ends its part by itself: `packaged`.
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

const NAMES: Readonly<Record<PartName, string>> = {
  head: "at the head of QEMU's stream",
  pages: "among pages",
  discards: "between discards and package",
  lastPages: "in post-copy",
  tail: "behind the end of QEMU's RAM",
};

export class StreamOrder {
  name: PartName = "head";

  /** @throws MigrationFault `peer-invalid` */
  enter(kind: Frame["frameKind"]): void {
    const next = NEXT[this.name][kind];
    if (next === undefined) throw invalid(`a frame of kind ${kind} ${NAMES[this.name]}`);
    this.name = next;
  }

  /** Post-copy: the package has come, and the last pages follow. */
  packaged(): void {
    this.name = "lastPages";
  }
}
