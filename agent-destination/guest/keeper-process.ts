/**
 * Starts the program that holds a QEMU's monitor, the keeper (monitor-keeper.ts). Once it was told to begin, it
 * outlives this agent.
 *
 * Once a migration has needed a keeper, the keeper for the next migration is started ahead, and waits for its QEMU. A
 * start of Node takes some 50 ms of processor time, and would come just when the guest and the destination's QEMU need
 * all processors (docs/design/warm-up.md#what-waits-for-the-next-migration). A keeper that waits ends with this agent.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { inOwnUnit } from "./guest-units.ts";

const PROGRAM = fileURLToPath(new URL("./monitor-keeper.js", import.meta.url));

/** The keeper that waits for the next QEMU. */
let waiting: KeeperProcess | undefined;
/** True once a keeper was told to begin. */
let wanted = false;

/** One process of the keeper's program. */
export class KeeperProcess {
  private readonly child: ChildProcess;
  private ended = false;

  private constructor() {
    const [program, ...args] = inOwnUnit([process.execPath, PROGRAM], "keeper");
    this.child = spawn(program, args, {
      detached: true,
      stdio: ["pipe", "ignore", "ignore"],
      // the program needs no environment. With NODE_EXTRA_CA_CERTS in it Node's start takes 80 to 100 ms, and 30 to 40
      // ms without it (docs/design/warm-up.md#what-waits-for-the-next-migration)
      env: {},
    });
    // a keeper that cannot be started is noticed by the wait for its socket
    this.child.on("error", () => this.forget());
    this.child.on("exit", () => this.forget());
    this.child.stdin?.on("error", () => undefined);
    this.child.unref();
  }

  /** Gives the keeper that waits, or starts a new one. */
  static take(): KeeperProcess {
    const found = waiting ?? new KeeperProcess();
    waiting = undefined;
    return found;
  }

  /** Starts a keeper for the next migration, if an earlier one has needed one and none waits. */
  static prepare(): void {
    if (!wanted || waiting !== undefined) return;
    waiting = new KeeperProcess();
  }

  /**
   * Tells the keeper to connect to QEMU's monitor, which must have no other client, and to pass it on.
   * @param qmp the path of QEMU's own socket
   * @param path the path of the keeper's socket, at which the monitor is from then on
   */
  begin(qmp: string, path: string): void {
    wanted = true;
    this.child.stdin?.end(`${JSON.stringify({ qmp, path })}\n`);
  }

  /** Puts back a keeper that is not needed: it waits for the next QEMU, or ends if another keeper waits already. */
  dismiss(): void {
    if (waiting === undefined && !this.ended) waiting = this;
    else this.child.stdin?.destroy();
  }

  /** Kills a keeper that was told to begin and is of no use. */
  end(): void {
    this.child.kill("SIGKILL");
  }

  /** Notes that the process has ended. */
  private forget(): void {
    this.ended = true;
    if (waiting === this) waiting = undefined;
  }
}
