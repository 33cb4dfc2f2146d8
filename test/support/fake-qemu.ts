/**
 * A simulated QEMU that knows the few commands that the agents say outside of a migration stream. A process of its own
 * stands for it, so that the agents can tell whether it lives and which process answers. What it says of its guest is
 * in fake-guest-facts.ts; a stream of pages is written by streaming-qemu.ts.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Test } from "tap";
import type { QemuProcess } from "../../shared/protocol/ownership.ts";
import { hasEnded, identify } from "../../shared/runtime/host/process-identity.ts";
import { bounded, eventually } from "./bounded.ts";
import { factOf } from "./fake-guest-facts.ts";
import { type Command, greeting, Monitor } from "./fake-monitor.ts";
import { atTeardown } from "./teardown.ts";

const ENDS_WITHIN_MS = 20_000;

export interface FakeQemuState {
  /** The run state that `query-status` returns. */
  status: string;
  /** The status that `query-migrate` returns. @default "completed" */
  migration?: string | undefined;
}

/**
 * Decides on the answer to a command: the text of an error, `"silence"` for no answer, or undefined for the usual one.
 */
export type Whim = (command: Command) => string | undefined;

export class FakeQemu {
  readonly process: QemuProcess;
  /** The path of the monitor's socket. */
  readonly path: string;
  /** The commands that it was told, without the queries. */
  readonly said: string[] = [];
  readonly state: FakeQemuState;
  /** The ids of the objects that `object-add` has made. */
  readonly objects = new Set<string>();
  /** The names of the images that it has open. */
  readonly images: string[] = [];
  /** What `query-migrate` tells of a migration that has failed. */
  errorDescription: string | undefined;
  /** Called with the path at which it was told to take a migration stream. */
  takesStreamAt: (path: string) => void = () => undefined;
  whim: Whim = () => undefined;
  /** Called with each command that is no query, when it has come and before it is answered. */
  onSaid: (command: Command) => void = () => undefined;
  /** If false, a new client is accepted but not greeted, as by a QEMU whose main loop waits for a page. */
  greets = true;
  private readonly muted = new Set<string>();
  private readonly monitors = new Set<Monitor>();
  private readonly child: ChildProcess;
  private readonly closeMonitor: () => void;

  /**
   * @param at the path of the monitor's socket. @default one in a folder of its own
   * @param words the end of the command line of its process. @default a command line that no QEMU has
   */
  static async start(t: Test, state: FakeQemuState, at?: string, words?: readonly string[]): Promise<FakeQemu> {
    const idle = ["-e", "setInterval(() => undefined, 1 << 30)", "--"];
    const [program, args] = words === undefined ? ["sleep", ["infinity"]] : [process.execPath, [...idle, ...words]];
    const child = spawn(program, args, { stdio: "ignore" });
    const forget = atTeardown(() => child.kill("SIGKILL"));
    t.teardown(() => {
      forget();
      child.kill("SIGKILL");
    });
    await once(child, "spawn");
    const pid = child.pid ?? 0;
    const own = { pid, identity: (await identify(pid)) ?? "" };
    let qemu: FakeQemu | undefined;
    const { path, close } = await listen(t, at, (socket) => {
      const monitor = new Monitor(socket, (command) => qemu?.answer(command, monitor));
      qemu?.monitors.add(monitor);
      socket.on("close", () => qemu?.monitors.delete(monitor));
      if (qemu?.greets !== false) monitor.reply(greeting("oob"));
    });
    qemu = new FakeQemu(child, close, { process: own, path, state });
    return qemu;
  }

  private constructor(child: ChildProcess, closeMonitor: () => void, of: Pick<FakeQemu, "process" | "path" | "state">) {
    this.child = child;
    this.closeMonitor = closeMonitor;
    this.process = of.process;
    this.path = of.path;
    this.state = of.state;
  }

  get isAlive(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  /** How many clients its monitor has. */
  get clients(): number {
    return this.monitors.size;
  }

  /** Ends as a QEMU that is killed. Whoever sees its monitor closed also finds that its process has ended. */
  async end(): Promise<void> {
    const exited: Promise<unknown> = this.isAlive ? once(this.child, "exit") : Promise.resolve();
    this.child.kill("SIGKILL");
    await bounded(exited, ENDS_WITHIN_MS, "the end of a fake QEMU");
    const isGone = async (): Promise<true | undefined> => ((await hasEnded(this.process)) ? true : undefined);
    await eventually(isGone, { timeoutMs: ENDS_WITHIN_MS, what: "the end of a fake QEMU in /proc" });
    this.closeMonitor();
  }

  /** Changes its run state, as when `cont` or `stop` is said at another monitor. */
  become(status: "running" | "paused"): void {
    this.state.status = status;
    this.announce(status === "running" ? "RESUME" : "STOP");
  }

  private answer(given: Command, monitor: Monitor): void {
    const command = { ...given, execute: given["exec-oob"] ?? given.execute };
    const { execute, id } = command;
    if (!/^(query|qom|human)-/.test(execute)) {
      this.said.push(execute);
      this.onSaid(command);
    }
    const whim = this.whim(command);
    if (whim === "silence") return;
    if (whim !== undefined) {
      monitor.reply({ error: { class: "GenericError", desc: whim }, id });
      return;
    }
    const answer = this.carryOut(command);
    if (execute === "cont") this.event(monitor, "RESUME");
    monitor.reply({ return: answer, id });
    if (execute === "quit") void this.end();
  }

  private carryOut({ execute, arguments: given }: Command): unknown {
    const { status, migration = "completed" } = this.state;
    switch (execute) {
      case "query-status":
        return { status, running: status === "running" };
      case "query-migrate":
        return migration === "none" ? {} : { status: migration, "error-desc": this.errorDescription };
      case "query-cpus-fast":
        return [{ "cpu-index": 0, "qom-path": "/", "thread-id": this.process.pid, target: "x86_64" }];
      case "query-named-block-nodes":
        return this.images.map((name) => ({ "node-name": name }));
      case "qom-list":
        return given?.path === "/objects" ? [...this.objects].map((name) => ({ name, type: "child<secret>" })) : [];
      case "object-add":
        this.objects.add(String(given?.id));
        return {};
      case "object-del":
        this.objects.delete(String(given?.id));
        return {};
      case "migrate-incoming":
      case "migrate-recover":
        this.takesStreamAt(String(given?.uri).replace(/^unix:/, ""));
        return {};
      case "cont":
        this.state.status = "running";
        return {};
      default:
        return factOf(execute, given) ?? {};
    }
  }

  /** Changes the status of its migration, and sends the event to every client. */
  migrationIs(status: string): void {
    this.state.migration = status;
    this.announce("MIGRATION", { status });
  }

  /** Sends an event to every client. */
  announce(event: string, data: object = {}): void {
    for (const monitor of this.monitors) this.event(monitor, event, data);
  }

  /** Sends no event of this name any more. */
  mutes(event: string): void {
    this.muted.add(event);
  }

  private event(monitor: Monitor, event: string, data: object = {}): void {
    if (this.muted.has(event)) return;
    const nowUs = Date.now() * 1000;
    const timestamp = { seconds: Math.floor(nowUs / 1e6), microseconds: nowUs % 1e6 };
    monitor.reply({ event, data, timestamp });
  }
}

async function listen(
  t: Test,
  at: string | undefined,
  onConnection: (socket: Socket) => void,
): Promise<{ readonly path: string; close(): void }> {
  const folder = mkdtempSync(join(tmpdir(), "ferry-qemu-"));
  const path = at ?? join(folder, "qmp");
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    onConnection(socket);
  });
  await new Promise<void>((resolve, reject) => server.once("error", reject).listen(path, resolve));
  const close = (): void => {
    for (const socket of sockets) socket.destroy();
    server.close();
  };
  t.teardown(() => {
    close();
    rmSync(folder, { recursive: true, force: true });
  });
  return { path, close };
}
