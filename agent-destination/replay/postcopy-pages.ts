/**
 * Post-copy at the destination: which pages its QEMU misses, what it asks for, and when it has them all.
 *
 *     advised: every page is missing ── frames ──> placed ── discards ──> missing ── frames, each page once ──> placed
 *
 * A page that came twice behind the package would break QEMU (UFFDIO_COPY), and one that never came leaves the guest waiting
 * for ever: neither gets past this, whatever the source sends.
 */

import { readDiscards } from "../../shared/codec/discard-frame.ts";
import { PageSet } from "../../shared/page/page-set.ts";
import type { DestinationMessage, RamBlock } from "../../shared/protocol/messages.ts";
import { ReturnPathReader, type ReturnPathSink } from "../../shared/qemu/return-path/return-path-reader.ts";
import { DiscardEncoder, encodePackageHead } from "../../shared/qemu/stream/command-encoder.ts";
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

/** As much as the source takes (shared/qemu/stream/stream-commands.ts). */
const PACKAGE_BYTES_MAX = 64 << 20;
const LENGTH_BYTES = 4;
/** Of a bitmap in one message: 32 KiB. */
const PAGES_A_PIECE = 1 << 18;

export class PostcopyPages implements ReturnPathSink {
  readonly service = new ServiceTimes();
  /** The package was written to QEMU. */
  readonly packaged: Deferred<void> = deferred();
  /** QEMU has everything: 0, or it failed. */
  readonly done: Deferred<number> = deferred();
  /** In a recovery: QEMU takes pages again. */
  readonly resumed: Deferred<void> = deferred();
  private readonly parts: PostcopyPagesOptions;
  private readonly missing: PageSet;
  private readonly returnPath: ReturnPathReader;
  private packageLeft = -1;
  private active = false;
  /** When QEMU had taken the package's last byte, microseconds on this clock. */
  packagedAtUs = 0;

  constructor(parts: PostcopyPagesOptions) {
    this.parts = parts;
    this.missing = new PageSet(parts.pageCount);
    this.missing.addRange(0, parts.pageCount);
    this.returnPath = new ReturnPathReader(parts.blocks, this);
  }

  /** The whole package came: pages behind it are final. */
  get isActive(): boolean {
    return this.active;
  }

  /** Pages that QEMU has not got. */
  get missingPages(): number {
    return this.missing.size;
  }

  /** A page is about to be written. @throws MigrationFault `peer-invalid` */
  placed(page: number, isDelta: boolean): void {
    const wasMissing = this.missing.remove(page);
    if (isDelta && wasMissing) throw invalid(`a delta of page ${page}, which was not there`);
    if (!this.active) return;
    if (!wasMissing) throw invalid(`page ${page} for the second time in post-copy`);
    if (this.service.isWaiting) this.service.served(page, this.parts.clock.nowUs());
  }

  /** @returns the commands for QEMU @throws MigrationFault `peer-invalid` */
  discards(body: Uint8Array): Uint8Array {
    if (this.packageLeft >= 0) throw invalid("discards behind the package");
    const commands: Uint8Array[] = [];
    const encoder = new DiscardEncoder(this.parts.blocks, (command) => commands.push(command.slice()));
    readDiscards(body, this.parts.pageCount, (firstPage, pageCount) => {
      this.missing.addRange(firstPage, pageCount);
      encoder.add(firstPage, pageCount);
    });
    encoder.flush();
    return Buffer.concat(commands);
  }

  /** @returns the bytes for QEMU, with the command ahead of the first @throws MigrationFault `peer-invalid` */
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
    if (rest.length > this.packageLeft) throw invalid(`${rest.length - this.packageLeft} bytes behind the package`);
    this.packageLeft -= rest.length;
    this.active = this.packageLeft === 0;
    pieces.push(rest);
    return Buffer.concat(pieces);
  }

  packageWritten(nowUs: number): void {
    this.packagedAtUs = nowUs;
    this.packaged.resolve();
  }

  /** The end of the stream is about to be written. @throws MigrationFault `peer-invalid` when pages are missing */
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
    // who was asked before has forgotten it
    for (const page of this.service.waitingPages) send({ kind: "pageRequest", firstPage: page, pageCount: 1 });
  }

  /** What QEMU writes on its socket. @throws MigrationFault `stream-invalid` */
  read(bytes: Uint8Array): void {
    this.returnPath.push(bytes);
  }

  // ── ReturnPathSink ──

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
  /** In a recovery: QEMU has said what it has, and takes pages again. */
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
