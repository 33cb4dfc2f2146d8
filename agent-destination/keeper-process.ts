/** Starts the program that holds a QEMU's monitor (monitor-keeper.ts), which outlives this agent once it was told to begin. */
import { type ChildProcess, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";

const PROGRAM = fileURLToPath(new URL("./monitor-keeper.js", import.meta.url));

export class KeeperProcess {
  /** Where it has the monitor for others. */
  readonly path: string;
  private readonly child: ChildProcess;

  /** @param qmpPath of a QEMU, which need not be there yet */
  constructor(qmpPath: string, path: string) {
    this.path = path;
    this.child = spawn(process.execPath, [PROGRAM, qmpPath, path], {
      detached: true,
      stdio: ["pipe", "ignore", "ignore"],
      env: {}, // it needs none, and what Node does at its start for some (certificates) takes longer than all the rest
    });
    // whoever waits for its socket finds out
    this.child.on("error", () => undefined);
    this.child.stdin?.on("error", () => undefined);
    this.child.unref();
  }

  /** It connects to the monitor, which nobody may hold. */
  begin(): void {
    this.child.stdin?.end("begin\n");
  }

  /** It is not needed: it ends. */
  dismiss(): void {
    this.child.stdin?.destroy();
  }
}
