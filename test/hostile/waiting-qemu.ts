/**
 * Plays a QEMU that a destination agent starts: a process of its own, with a monitor and a socket for the stream that
 * the test answers. This QEMU has the whole guest when the last bytes of the stream have come.
 */
import { existsSync, readFileSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import type { RamBlock } from "../../shared/protocol/messages.ts";
import { type Command, greeting, Monitor } from "../support/fake-monitor.ts";
import type { Test } from "../support/link-fixtures.ts";
import { atTeardown } from "../support/teardown.ts";

/** The last bytes of a stream that this QEMU loads. */
export const LAST_BYTES = Buffer.from("the devices are all here");
const LOOKS_EVERY_MS = 3;
/**
 * The program of the process. It writes its pid where the test looks for it, and stays. Its arguments name the monitor,
 * as those of a QEMU do.
 */
const PROGRAM = 'open F, ">", shift; print F "$$\\n"; close F; rename $ARGV[0], $ARGV[1]; sleep 1e6 while 1';

export class WaitingQemu {
  /** The commands that the monitor was given in all lives of this QEMU, except those that only ask. */
  readonly said: string[] = [];
  /** The path of the monitor's socket. */
  readonly path: string;
  private readonly pidPath: string;
  private readonly blocks: readonly RamBlock[];
  private readonly servers = new Set<Server>();
  private readonly sockets = new Set<Socket>();
  private readonly monitors = new Set<Monitor>();
  private readonly objects = new Set<string>();
  private status = "inmigrate";
  private pid = 0;
  /** How many bytes of the stream have come in this life. */
  taken = 0;

  constructor(t: Test, folder: string, blocks: readonly RamBlock[]) {
    this.path = join(folder, "web.qmp");
    this.pidPath = join(folder, "web.pid");
    this.blocks = blocks;
    const timer = setInterval(() => this.lookForProcess(), LOOKS_EVERY_MS);
    const end = (): void => {
      clearInterval(timer);
      this.close();
      if (this.isAlive) process.kill(this.pid, "SIGKILL");
    };
    const forget = atTeardown(end);
    t.teardown(() => {
      forget();
      end();
    });
  }

  /** The command for the guest's definition. */
  get command(): readonly string[] {
    const written = `${this.pidPath}.new`;
    return ["perl", "-e", PROGRAM, written, written, this.pidPath, `unix:${this.path},server=on`];
  }

  get isAlive(): boolean {
    return this.pid > 0 && existsSync(`/proc/${this.pid}`) && !/^State:\s+[ZX]/m.test(statusOf(this.pid));
  }

  /** Kills the process, as somebody else might. */
  kill(): void {
    process.kill(this.pid, "SIGKILL");
    this.close();
  }

  /** Runs the guest, as if somebody had said `cont` at another monitor. */
  resume(): void {
    this.status = "running";
    for (const monitor of this.monitors) this.event(monitor, "RESUME");
  }

  private lookForProcess(): void {
    if (this.servers.size > 0 && !this.isAlive) this.close();
    if (!existsSync(this.pidPath)) return;
    this.pid = Number(readFileSync(this.pidPath, "utf8"));
    rmSync(this.pidPath);
    this.close();
    // the agent may have ended this process already
    if (!this.isAlive) return;
    this.objects.clear();
    this.status = "inmigrate";
    this.taken = 0;
    this.listen(this.path, (socket) => {
      const monitor = new Monitor(socket, (command) => this.answer(command, monitor));
      this.monitors.add(monitor);
      socket.on("close", () => this.monitors.delete(monitor));
      monitor.reply(greeting("oob"));
    });
  }

  private listen(path: string, onConnection: (socket: Socket) => void): void {
    rmSync(path, { force: true });
    const server = createServer((socket) => {
      this.sockets.add(socket);
      socket.on("error", () => undefined);
      socket.on("close", () => this.sockets.delete(socket));
      onConnection(socket);
    });
    this.servers.add(server);
    server.listen(path);
  }

  private close(): void {
    for (const socket of this.sockets) socket.destroy();
    for (const server of this.servers) server.close();
    this.servers.clear();
  }

  private takeStream(socket: Socket): void {
    let tail = Buffer.alloc(0);
    socket.on("data", (bytes: Buffer) => {
      this.taken += bytes.length;
      tail = Buffer.concat([tail, bytes]).subarray(-LAST_BYTES.length);
      if (!tail.equals(LAST_BYTES)) return;
      this.status = "paused";
      for (const monitor of this.monitors) this.event(monitor, "MIGRATION", { status: "completed" });
    });
  }

  private answer({ execute, arguments: given, id }: Command, monitor: Monitor): void {
    if (!/^(query|qom)-|^human/.test(execute)) this.said.push(execute);
    monitor.reply({ return: this.carryOut(execute, given ?? {}), id });
    if (execute === "cont") this.resume();
    if (execute === "quit") this.kill();
  }

  private carryOut(execute: string, given: Readonly<Record<string, unknown>>): unknown {
    switch (execute) {
      case "query-status":
        return { status: this.status, running: this.status === "running" };
      case "query-migrate":
        return { status: this.status === "inmigrate" ? "active" : "completed" };
      case "query-cpus-fast":
        return [{ "cpu-index": 0, "qom-path": "/cpu", "thread-id": this.pid, target: "x86_64" }];
      case "qom-get":
        return given.property === "type"
          ? given.path === "/machine"
            ? "pc-q35-10.0-machine"
            : "qemu64-x86_64-cpu"
          : {};
      case "qom-list":
        return given.path === "/objects" ? [...this.objects].map((name) => ({ name, type: "child<secret>" })) : [];
      case "object-add":
        this.objects.add(String(given.id));
        return {};
      case "migrate-incoming":
        this.listen(String(given.uri).replace(/^unix:/, ""), (socket) => this.takeStream(socket));
        return {};
      case "human-monitor-command":
        return given["command-line"] === "info ramblock" ? this.ramBlocks() : "";
      default:
        return /^query-(block|named|memdev|pci|migrate-cap)/.test(execute) ? [] : {};
    }
  }

  /** The RAM blocks as QEMU's "info ramblock" shows them. */
  private ramBlocks(): string {
    const hex = (value: number): string => `0x${value.toString(16).padStart(16, "0")}`;
    const row = ({ name, byteLength }: RamBlock): string =>
      `${name.padStart(20)}    4 KiB  ${hex(0)} ${hex(byteLength)} ${hex(byteLength)}`;
    return [
      " Block Name    PSize              Offset               Used              Total",
      ...this.blocks.map(row),
    ].join("\r\n");
  }

  private event(monitor: Monitor, event: string, data: object = {}): void {
    monitor.reply({ event, data, timestamp: { seconds: Math.floor(Date.now() / 1000), microseconds: 0 } });
  }
}

function statusOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/status`, "latin1");
  } catch {
    return "State: X";
  }
}
