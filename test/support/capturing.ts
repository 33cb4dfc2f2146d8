/** Makes a source's PostcopyCapture over a sender in memory, and records what QEMU would be told on its return path. */
import { PostcopyCapture } from "../../agent-source/postcopy/postcopy-capture.ts";
import { readDiscards } from "../../shared/codec/discard-frame.ts";
import { ReturnPathReader } from "../../shared/qemu/return-path/return-path-reader.ts";
import { PAGE_SIZE } from "../../shared/units.ts";
import { type SendingOptions, sending } from "./sending.ts";

export const PAGES = 400;
export const BLOCKS = [
  { name: "pc.ram", byteLength: 390 * PAGE_SIZE, pageSize: PAGE_SIZE },
  { name: "pc.bios", byteLength: 10 * PAGE_SIZE, pageSize: PAGE_SIZE },
];
export const SECTION = 2;

export function capturing(options: SendingOptions = {}, aheadPages = 0) {
  const { pageCount = PAGES } = options;
  const rig = sending({ ...options, pageCount });
  const { kernels, scheduler, sender, frames, put, window } = rig;
  /** The pages that QEMU was asked for on its return path. */
  const asked: number[] = [];
  const pongs: number[] = [];
  const none = (): void => undefined;
  const qemu = new ReturnPathReader(BLOCKS, {
    requestPages: (first, count) => {
      for (let page = first; page < first + count; page++) asked.push(page);
    },
    pong: (value) => pongs.push(value),
    shut: none,
    switchoverAck: none,
    resumeAck: none,
    receivedPages: none,
  });
  const calls = { packaged: 0, wanted: 0, ended: 0 };
  const capture = new PostcopyCapture({
    memory: kernels.memory,
    scheduler,
    sender,
    pageCount,
    aheadPages,
    byHeat: true,
    answer: (bytes) => qemu.push(bytes),
    onPackaged: () => calls.packaged++,
    resumeIntake: () => calls.wanted++,
    onEnd: () => calls.ended++,
  });
  capture.layout({ blocks: BLOCKS, ramSectionId: SECTION });
  /** Sends a package as QEMU does. If `runs` is true, the guest then runs at the destination. */
  const sendPackage = (bytes: Uint8Array, runs = true): void => {
    kernels.memory.set(bytes, window);
    capture.packageStart(bytes.length);
    capture.packageBytes(window, window + 1);
    capture.packageBytes(window + 1, window + bytes.length);
    capture.packageEnd();
    if (runs) capture.flow();
  };
  const offer = (page: number, value = 1): boolean =>
    value === 0 ? capture.zeroPage(page) : capture.page(page, put(value));
  const discarded = (): number[] =>
    frames.flatMap(({ kind, body }) => {
      const pages: number[] = [];
      if (kind === "discards")
        readDiscards(body, PAGES, (first, count) => {
          for (let page = first; page < first + count; page++) pages.push(page);
        });
      return pages;
    });
  return { ...rig, postcopy: capture, asked, pongs, calls, sendPackage, offer, discarded };
}

export const PACKAGE = Buffer.from("what the devices are");
