/**
 * Post-copy's pages at the destination: which of them QEMU misses, which ones it asks for, and when it has them all.
 *
 *     advised: every page is missing ── frames ──> placed ── discards ──> missing ── frames, each page once ──> placed
 *
 * After the package, a page that came twice would break QEMU's post-copy (UFFDIO_COPY), and a page that never came
 * would leave the guest waiting for ever. Both are refused here, whatever the source sends.
 */

import { readDiscards } from "../../shared/codec/discard-frame.ts";
import { PageSet } from "../../shared/page/page-set.ts";
import type { RamBlock } from "../../shared/protocol/messages.ts";
import type { DestinationMessage } from "../../shared/protocol/stream-messages.ts";
import { ReturnPathReader, type ReturnPathSink } from "../../shared/qemu/return-path/return-path-reader.ts";
import { DiscardEncoder, encodePackageHead } from "../../shared/qemu/stream/command-encoder.ts";
import { PACKAGE_BYTES_MAX } from "../../shared/qemu/stream/stream-commands.ts";
import type { Clock } from "../../shared/runtime/clock.ts";
import { type Deferred, deferred } from "../../shared/runtime/deferred.ts";
import { invalid } from "./invalid-stream.ts";
import { ServiceTimes } from "./service-times.ts";

export interface PostcopyPagesOptions {
  readonly blocks: readonly RamBlock[];
  readonly pageCount: number;
  readonly clock: Clock;
  readonly send: (message: DestinationMessage) => void;
}

/** The length of the number ahead of the package, which says how long the package is, bytes. */
const LENGTH_BYTES = 4;
/** How many pages one message `missing` is about at most, so that its bitmap has 32 KiB. */
const PAGES_A_PIECE = 1 << 18;

/** Follows the pages of one guest, from the moment at which the list of the guest's RAM blocks has come. */
export class PostcopyPages implements ReturnPathSink {
  /** How long the guest has waited for the pages that it asked for. */
  readonly service = new ServiceTimes();
  /** Resolved when the package was written to QEMU. */
  readonly packaged: Deferred<void> = deferred();
  /** Resolved when QEMU ends post-copy: with 0 when it has every page, with another number when it has failed. */
  readonly done: Deferred<number> = deferred();
  /** Resolved when QEMU takes pages again in a post-copy that was broken. */
  readonly resumed: Deferred<void> = deferred();
  private readonly parts: PostcopyPagesOptions;
  /** The pages that QEMU has not got. */
  private readonly missing: PageSet;
  private readonly returnPath: ReturnPathReader;
  /** How many bytes of the package have not come yet; -1 before its first frame. */
  private packageLeft = -1;
  private active = false;
  /** When QEMU had taken the package's last byte, microseconds on this host's clock. */
  packagedAtUs = 0;

  constructor(parts: PostcopyPagesOptions) {
    this.parts = parts;
    this.missing = new PageSet(parts.pageCount);
    this.missing.addRange(0, parts.pageCount);
    this.returnPath = new ReturnPathReader(parts.blocks, this);
  }

  /** True once the whole package has come, or post-copy was resumed: a page that comes from then on is final. */
  get isActive(): boolean {
    return this.active;
  }

  /** How many pages QEMU has not got. */
  get missingPages(): number {
    return this.missing.size;
  }

  /**
   * Notes that a page is about to be written to QEMU.
   * @throws MigrationFault `peer-invalid` for a delta of a page that is not there, and in post-copy for a page that
   *   came before
   */
  placed(page: number, isDelta: boolean): void {
    const wasMissing = this.missing.remove(page);
    if (isDelta && wasMissing) throw invalid(`a delta of page ${page}, which was not there`);
    if (!this.active) return;
    if (!wasMissing) throw invalid(`page ${page} for the second time in post-copy`);
    if (this.service.isWaiting) this.service.served(page, this.parts.clock.nowUs());
  }

  /**
   * Takes a frame of discards: its pages are missing again.
   * @returns the commands for QEMU
   * @throws MigrationFault `peer-invalid`
   */
  discards(body: Uint8Array): Uint8Array {
    if (this.packageLeft >= 0) throw invalid("discards after the package");
    const commands: Uint8Array[] = [];
    const encoder = new DiscardEncoder(this.parts.blocks, (command) => commands.push(command.slice()));
    readDiscards(body, this.parts.pageCount, (firstPage, pageCount) => {
      this.missing.addRange(firstPage, pageCount);
      encoder.add(firstPage, pageCount);
    });
    encoder.flush();
    return Buffer.concat(commands);
  }

  /**
   * Takes a frame of the package.
   * @returns the bytes for QEMU; those of the first frame begin with the command that announces the package
   * @throws MigrationFault `peer-invalid`
   */
  package(body: Uint8Array): Uint8Array {
    if (this.active) throw invalid("more than one package");
    const pieces: Uint8Array[] = [];
    let rest = body;
    if (this.packageLeft < 0) {
      const length =
        body.length < LENGTH_BYTES ? 0 : new DataView(body.buffer, body.byteOffset, LENGTH_BYTES).getUint32(0, true);
      if (length === 0 || length > PACKAGE_BYTES_MAX) throw invalid(`a package of ${length} bytes`);
      this.packageLeft = length;
      pieces.push(encodePackageHead(length));
      rest = body.subarray(LENGTH_BYTES);
    }
    if (rest.length > this.packageLeft) throw invalid(`${rest.length - this.packageLeft} bytes after the package`);
    this.packageLeft -= rest.length;
    this.active = this.packageLeft === 0;
    pieces.push(rest);
    return Buffer.concat(pieces);
  }

  /** Notes that the whole package was written to QEMU. */
  packageWritten(nowUs: number): void {
    this.packagedAtUs = nowUs;
    this.packaged.resolve();
  }

  /**
   * Checks that no page is missing, before the end of the stream is written.
   * @throws MigrationFault `peer-invalid` when pages are missing
   */
  checkEnd(): void {
    if (this.missing.size > 0) throw invalid(`the end of post-copy with ${this.missing.size} pages missing`);
  }

  /** Tells the source which pages are missing. */
  tellMissing(): void {
    const { pageCount, send } = this.parts;
    for (let firstPage = 0; firstPage < pageCount; firstPage += PAGES_A_PIECE) {
      const pages = Math.min(PAGES_A_PIECE, pageCount - firstPage);
      const bits = this.missing.bits(firstPage, pages);
      send({ kind: "missing", firstPage, pageCount: pages, bits, last: firstPage + pages === pageCount });
    }
    // a source that begins its stream again no longer knows which pages it was asked for
    for (const page of this.service.waitingPages) send({ kind: "pageRequest", firstPage: page, pageCount: 1 });
  }

  /**
   * Reads what QEMU writes back on its socket.
   * @throws MigrationFault `stream-invalid`
   */
  read(bytes: Uint8Array): void {
    this.returnPath.push(bytes);
  }

  // the methods of ReturnPathSink, which say what QEMU has written back

  requestPages(firstPage: number, pageCount: number): void {
    const nowUs = this.parts.clock.nowUs();
    for (let page = firstPage; page < firstPage + pageCount; page++)
      if (this.missing.has(page)) this.service.requested(page, nowUs);
    this.parts.send({ kind: "pageRequest", firstPage, pageCount });
  }
  pong(value: number): void {
    this.parts.send({ kind: "pong", value });
  }
  shut(error: number): void {
    this.done.resolve(error);
  }
  /** Called in a post-copy that was broken, when QEMU has said which pages it has, and takes pages again. */
  resumeAck(): void {
    this.active = true;
    this.resumed.resolve();
  }
  receivedPages(firstPage: number, pageCount: number, bits: Uint8Array): void {
    this.missing.setBits(firstPage, pageCount, bits.map(complement));
  }
  switchoverAck(): void {}
}

const complement = (byte: number): number => ~byte & 255;
