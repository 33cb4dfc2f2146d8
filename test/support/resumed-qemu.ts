/**
 * Lets a simulated QEMU (fake-qemu.ts) go on with a post-copy whose stream was broken: it asks what the destination
 * has, and then writes the first four pages and the end of the stream.
 */
import { connect } from "node:net";
import type { Test } from "tap";
import { ReturnPathReader } from "../../shared/qemu/return-path/return-path-reader.ts";
import { encodeRamEnd } from "../../shared/qemu/stream/stream-writer.ts";
import type { FakeQemu } from "./fake-qemu.ts";
import { asking, RESUMED_SETUP } from "./fake-resumed.ts";
import { pagesLeft } from "./streaming-qemu.ts";

export class ResumedQemu {
  /** What came on the return path: for each RAM block how many pages the destination misses, and "resume". */
  readonly heard: string[] = [];
  /** For each `migrate`, whether it said that the migration is resumed. */
  readonly resumes: unknown[] = [];

  constructor(t: Test, qemu: FakeQemu) {
    const { onSaid } = qemu;
    qemu.onSaid = (command) => {
      onSaid(command);
      if (command.execute !== "migrate") return;
      this.resumes.push(command.arguments?.resume);
      this.goOn(t, String(command.arguments?.uri));
    };
  }

  private goOn(t: Test, uri: string): void {
    const socket = connect(uri.replace("unix:", ""));
    t.teardown(() => socket.destroy());
    const none = (): void => undefined;
    const reader = new ReturnPathReader(RESUMED_SETUP.blocks, {
      ...{ requestPages: none, pong: none, switchoverAck: none, shut: none },
      receivedPages: (firstPage, pageCount, bits) => {
        let missing = 0;
        for (let page = 0; page < pageCount; page++) if (((bits[page >> 3] ?? 0) & (1 << (page & 7))) === 0) missing++;
        this.heard.push(`all but ${missing} of ${pageCount} from ${firstPage}`);
      },
      resumeAck: () => {
        this.heard.push("resume");
        socket.write(pagesLeft());
        socket.write(encodeRamEnd(RESUMED_SETUP.ramSectionId));
        socket.write(Buffer.of(0));
      },
    });
    socket.on("error", none);
    socket.on("data", (bytes) => reader.push(bytes));
    socket.write(asking());
  }
}
