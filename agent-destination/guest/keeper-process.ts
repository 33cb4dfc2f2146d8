/**
 * Starts the program that holds a QEMU's monitor (monitor-keeper.ts), which outlives this agent once it was told to begin.
 *
 * Where one was needed the next waits for its QEMU: a start of Node takes some 50 ms of a processor, just when the guest and the
 * destination's QEMU want all there are (docs/decisions/0041). One that waits ends with this agent.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { inOwnUnit } from "./guest-units.ts";

const PROGRAM = fileURLToPath(new URL("./monitor-keeper.js", import.meta.url));

let waiting: KeeperProcess | undefined;
let wanted = false;

export class KeeperProcess {
  private readonly child: ChildProcess;
  private ended = false;

  private constructor() {
    const [program, ...args] = inOwnUnit([process.execPath, PROGRAM], "keeper");
    this.child = spawn(program, args, {
      detached: true,
      stdio: ["pipe", "ignore", "ignore"],
      env: {}, // it needs none, and what Node does at its start for some (certificates) takes longer than all the rest
    });
    // whoever waits for its socket finds out
    this.child.on("error", () => this.forget());
    this.child.on("exit", () => this.forget());
    this.child.stdin?.on("error", () => undefined);
    this.child.unref();
  }

  /** One that waits, or a new one. */
  static take(): KeeperProcess {
    const found = waiting ?? new KeeperProcess();
    waiting = undefined;
    return found;
  }

  /** Behind a migration that needed one: for the next. */
  static prepare(): void {
    if (!wanted || waiting !== undefined) return;
    waiting = new KeeperProcess();
  }

  /**
   * It connects to the monitor, which nobody else may hold, and has it for others.
   * @param qmp where QEMU has it
   * @param path where it is from then on
   */
  begin(qmp: string, path: string): void {
    wanted = true;
    this.child.stdin?.end(`${JSON.stringify({ qmp, path })}\n`);
  }

  /** It is not needed: it waits for the next QEMU, or ends where another one does. */
  dismiss(): void {
    if (waiting === undefined && !this.ended) waiting = this;
    else this.child.stdin?.destroy();
  }

  /** Kills a keeper to which nobody connects. */
  end(): void {
    this.child.kill("SIGKILL");
  }

  private forget(): void {
    this.ended = true;
    if (waiting === this) waiting = undefined;
  }
}
