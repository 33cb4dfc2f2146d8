/**
 * Another program that wants the guest's image for itself. It takes QEMU's lock on the image whenever the lock is free,
 * which is when the guest is handed over, holds the lock for a while, and then lets it go.
 */
import { join } from "node:path";
import { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import { deferred } from "../../shared/runtime/deferred.ts";
import { tell } from "./block-jobs.ts";
import { eventually } from "./bounded.ts";
import type { Rig, RigHost } from "./rig.ts";

const STARTS_WITHIN_MS = 30_000;
const MACHINE = "-M pc-q35-8.1 -accel tcg -m 16 -S -nodefaults -no-user-config -display none".split(" ");
/** The pause between two attempts, milliseconds. It is short, since an image is free for only some milliseconds. */
const ATTEMPT_MS = 1;
/** The pause between the end of one lock and the next attempt, milliseconds. */
const BETWEEN_MS = 200;
const NODE = "wanted";
const EXPORT = "holder";

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

interface LockPlan {
  readonly locks: number;
  readonly lockedMs: number;
  readonly isOver: () => boolean;
  readonly onTaken: () => void;
}

export interface WantedLock {
  /** Resolves when the lock was taken for the first time. */
  readonly taken: Promise<void>;
  /** Ends the attempts, and waits for the end of a lock that is held. @returns how often the lock was taken */
  end(): Promise<number>;
}

export class ImageLocker {
  readonly #qmp: QmpClient;

  /**
   * Starts a QEMU without a guest. It exports the image for writing, and so takes the same lock as a guest's QEMU does.
   */
  static async start(rig: Rig, host: RigHost): Promise<ImageLocker> {
    const folder = join(host.runtimeDirectory, "..");
    const monitor = join(folder, "locker.qmp");
    const command = ["qemu-system-x86_64", ...MACHINE, "-qmp", `unix:${monitor},server=on,wait=off`];
    const locker = await rig.spawn(host, `a program that wants the image on ${host.name}`, command);
    const connect = async (): Promise<QmpClient | undefined> => {
      if (!locker.running) throw new Error(`The program that wants the image has ended: ${locker.output()}`);
      return await QmpClient.connect(monitor).catch(() => undefined);
    };
    const qmp = await eventually(connect, { timeoutMs: STARTS_WITHIN_MS, what: "the program that wants the image" });
    const address = { type: "unix", data: { path: join(folder, "locker.nbd") } };
    await tell(qmp, "nbd-server-start", { addr: address });
    return new ImageLocker(qmp);
  }

  private constructor(qmp: QmpClient) {
    this.#qmp = qmp;
  }

  /** Takes the lock as soon as it is free, at most `locks` times, for `lockedMs` milliseconds each time. */
  want(file: string, { locks, lockedMs }: { locks: number; lockedMs: number }): WantedLock {
    let isOver = false;
    const first = deferred<void>();
    const all = this.#comeAndGo(file, { locks, lockedMs, isOver: () => isOver, onTaken: first.resolve });
    // end() rejects with the fault, if there was one
    all.catch(() => undefined);
    const end = (): Promise<number> => {
      isOver = true;
      return all;
    };
    return { taken: first.promise, end };
  }

  close(): void {
    this.#qmp.close();
  }

  async #comeAndGo(file: string, { locks, lockedMs, isOver, onTaken }: LockPlan): Promise<number> {
    let taken = 0;
    await tell(this.#qmp, "blockdev-add", { driver: "file", "node-name": NODE, filename: file });
    while (taken < locks && !isOver()) {
      if (!(await this.#take())) {
        await pause(ATTEMPT_MS);
        continue;
      }
      taken += 1;
      onTaken();
      await pause(lockedMs);
      await tell(this.#qmp, "block-export-del", { id: EXPORT, mode: "hard" });
      await this.#untilGone();
      await pause(BETWEEN_MS);
    }
    await tell(this.#qmp, "blockdev-del", { "node-name": NODE });
    return taken;
  }

  #take(): Promise<boolean> {
    const given = { id: EXPORT, type: "nbd", "node-name": NODE, writable: true };
    return tell(this.#qmp, "block-export-add", given).then(
      () => true,
      (thrown: unknown) => {
        if (/lock/.test(String(thrown))) return false;
        throw thrown;
      },
    );
  }

  async #untilGone(): Promise<void> {
    const none = async (): Promise<true | undefined> =>
      JSON.stringify(await tell(this.#qmp, "query-block-exports")) === "[]" ? true : undefined;
    await eventually(none, { timeoutMs: STARTS_WITHIN_MS, what: "the end of the lock" });
  }
}
