/**
 * Lets a simulated QEMU (fake-qemu.ts) write a migration stream to the agent's socket, and do what QEMU does when it is
 * told on the return path, or by its monitor, to stop the guest, to begin post-copy, to complete or to give up.
 *
 *     migrate ── head, one section of pages ─┬─ SWITCHOVER_ACK ── STOP, last pages, devices ── SHUT ── completed
 *                                            └─ stop, migrate-start-postcopy, SWITCHOVER_ACK ── discards, package
 */
import { connect, type Socket } from "node:net";
import type { Test } from "tap";
import { ReturnPathReader } from "../../shared/qemu/return-path/return-path-reader.ts";
import { encodePostcopyEnd } from "../../shared/qemu/stream/command-encoder.ts";
import { FAKE_BLOCKS, FAKE_RAM } from "./fake-guest-facts.ts";
import type { Command } from "./fake-monitor.ts";
import { advise, discard, openReturnPath, packaged, ping, switchoverStart } from "./fake-postcopy.ts";
import type { FakeQemu } from "./fake-qemu.ts";
import { picker, ramStart, SectionMaker, StreamBytes, streamHead } from "./fake-stream.ts";

const RAM_SECTION = 2;
const GLOBAL_STATE_SECTION = 3;
/** The pages that QEMU sends after the package: the first ones of `pc.ram`. */
const PAGES_LEFT = 4;
/** Statuses of a migration that is over. */
const ENDED: readonly string[] = ["completed", "failed", "cancelled"];
const PACKAGE = Buffer.from("the devices of the guest");
const DESCRIPTION = '{"configuration": {"vmsd_name": "configuration"}, "page_size": 4096}';

/** What this QEMU does otherwise than a QEMU that is well. */
export interface Streaming {
  /** If true, the stream begins with ADVISE, and post-copy may follow. */
  readonly postcopy?: boolean;
  /** The run state that QEMU notes in its stream. @default the run state in which the guest was stopped */
  readonly stoppedAs?: string;
  /** If false, `migrate` makes no connection. */
  readonly connects?: boolean;
  /** If false, the guest is never stopped for the switchover. */
  readonly stops?: boolean;
  /** If false, QEMU ignores SHUT. */
  readonly completes?: boolean;
}

export class StreamingQemu {
  /** What came on the return path, in order: "ack" for SWITCHOVER_ACK, and "shut 0". */
  readonly heard: string[] = [];
  /** Called with each entry of `heard`. */
  onHeard: (what: string) => void = () => undefined;
  private readonly qemu: FakeQemu;
  private readonly how: Streaming;
  private readonly maker = new SectionMaker(FAKE_BLOCKS, picker(7));
  private socket: Socket | undefined;
  private mayPostcopy = false;

  constructor(t: Test, qemu: FakeQemu, how: Streaming = {}) {
    this.qemu = qemu;
    this.how = how;
    const { onSaid } = qemu;
    qemu.onSaid = (command) => {
      onSaid(command);
      this.told(command);
    };
    t.teardown(() => this.socket?.destroy());
  }

  /** Closes the stream, as a QEMU whose migration has failed or was cancelled. */
  breakStream(status: string): void {
    this.qemu.state.migration = status;
    this.socket?.destroy();
  }

  /** Writes the pages that are left in post-copy, and the end of the stream. */
  sendLastPages(): void {
    const section = new StreamBytes().u8(2).be32(RAM_SECTION);
    for (let page = 0; page < PAGES_LEFT; page++) {
      section.be64(page * 4096 + 8 + (page > 0 ? 0x20 : 0));
      if (page === 0) section.name("pc.ram");
      section.bytes(Buffer.alloc(4096, page + 1));
    }
    this.socket?.write(section.be64(0x10).u8(0x7e).be32(RAM_SECTION).done());
    this.socket?.write(encodePostcopyEnd(RAM_SECTION));
  }

  private told({ execute, arguments: given }: Command): void {
    if (execute === "migrate" && this.how.connects !== false) this.begin(String(given?.uri));
    if (execute === "migrate-start-postcopy") this.mayPostcopy = true;
    if (execute === "stop") this.qemu.become("paused");
    if (execute === "migrate_cancel") this.fails("cancelled");
  }

  private begin(uri: string): void {
    const socket = connect(uri.replace("unix:", ""));
    this.socket = socket;
    this.qemu.state.migration = "active";
    const none = (): void => undefined;
    const reader = new ReturnPathReader(FAKE_RAM, {
      ...{ requestPages: none, pong: none, resumeAck: none, receivedPages: none },
      switchoverAck: () => this.acknowledged(),
      shut: (error) => this.shut(error),
    });
    socket.on("error", none);
    socket.on("data", (bytes) => reader.push(bytes));
    // the agent has closed its end: without SHUT the migration has failed, and QEMU resumes a guest that it has stopped
    socket.on("close", () => this.fails("failed"));
    socket.write(streamHead("pc-q35-10.0").bytes(openReturnPath().done()).bytes(ping(1).done()).done());
    if (this.how.postcopy === true) socket.write(advise().done());
    socket.write(ramStart(FAKE_BLOCKS));
    socket.write(this.maker.section(2, 6));
  }

  private note(what: string): void {
    this.heard.push(what);
    this.onHeard(what);
  }

  private acknowledged(): void {
    const { qemu, how } = this;
    this.note("ack");
    if (how.stops === false) return;
    if (this.mayPostcopy) this.sendPackage();
    else {
      const stoppedAs = how.stoppedAs ?? qemu.state.status;
      if (qemu.state.status === "running") qemu.announce("STOP");
      qemu.state.status = "finish-migrate";
      this.sendDevices(stoppedAs);
    }
  }

  /** Writes the last pages and the device state of a guest that stands still. */
  sendDevices(stoppedAs: string): void {
    this.qemu.state.migration = "device";
    const state = new StreamBytes().u8(4).be32(GLOBAL_STATE_SECTION).name("globalstate").be32(0).be32(1).be32(100);
    state
      .bytes(Buffer.from(stoppedAs.padEnd(100, "\0")))
      .u8(0x7e)
      .be32(GLOBAL_STATE_SECTION);
    state.u8(0, 6).be32(DESCRIPTION.length).bytes(Buffer.from(DESCRIPTION));
    this.socket?.write(switchoverStart().bytes(this.maker.section(3, 2)).bytes(state.done()).done());
  }

  private sendPackage(): void {
    this.qemu.state.status = "finish-migrate";
    const discards = discard("pc.ram", [[0, PAGES_LEFT * 4096]]).done();
    const bytes = switchoverStart().bytes(discards).bytes(ping(2).done()).bytes(packaged(PACKAGE.length).done());
    this.socket?.write(bytes.bytes(PACKAGE).done());
    this.qemu.migrationIs("postcopy-active");
  }

  private shut(error: number): void {
    this.note(`shut ${error}`);
    if (error !== 0 || this.how.completes === false) return;
    this.qemu.state.status = "postmigrate";
    this.qemu.migrationIs("completed");
    this.socket?.end();
  }

  private fails(status: string): void {
    const { qemu } = this;
    if (ENDED.includes(qemu.state.migration ?? "")) return;
    qemu.state.migration = qemu.state.migration === "postcopy-active" ? "postcopy-paused" : status;
    if (qemu.state.status === "finish-migrate" && status !== "completed") qemu.become("running");
    this.socket?.destroy();
  }
}
