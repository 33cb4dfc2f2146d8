/**
 * A guest's disk in a directory that both hosts of a rig share, as hosts share the file system of a cluster. The
 * directory is `images` in the runtime directory of each host. It needs root, to mount.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Test } from "tap";
import { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import { eventually } from "./bounded.ts";
import type { RigProcess } from "./process.ts";
import type { Rig, RigHost } from "./rig.ts";
import { atTeardown } from "./teardown.ts";

const IMAGE = "d.raw";
const IMAGE_BYTES = 1 << 20;
const LOCKS_WITHIN_MS = 20_000;

/** QEMU's arguments for the disk. */
export const DISK_ARGUMENTS = [
  ...["-drive", `file={runtime}/images/${IMAGE},format=raw,if=none,id=d0`],
  ...["-device", "virtio-blk-pci,drive=d0"],
];

/** The directory of images in the runtime directory of each host, beside what Ferry puts there. */
export const IMAGES = "images";

/** Mounts a directory a second time, until the end of the test. Needs root. */
export function mountAgain(t: Test, here: string, there: string): void {
  execFileSync("mount", ["--bind", here, there]);
  const unmount = (): void => void execFileSync("umount", ["--lazy", there]);
  const forget = atTeardown(unmount);
  t.teardown(() => {
    forget();
    unmount();
  });
}

export class SharedImages {
  private readonly rig: Rig;
  private readonly there: string;

  /** Makes a directory with an image at the first host, and mounts the directory at the second host. */
  static share(t: Test, rig: Rig): SharedImages {
    const [here, there] = [rig.a, rig.b].map(({ runtimeDirectory }) => join(runtimeDirectory, IMAGES)) as [
      string,
      string,
    ];
    mkdirSync(here);
    writeFileSync(join(here, IMAGE), Buffer.alloc(IMAGE_BYTES));
    mkdirSync(there);
    mountAgain(t, here, there);
    return new SharedImages(rig, there);
  }

  private constructor(rig: Rig, there: string) {
    this.rig = rig;
    this.there = there;
  }

  /**
   * Makes the directory read-only, or writable again, as the agent of the second host and the QEMUs that this agent
   * starts see it. It is mounted again in the agent's namespace, since programs in a network namespace have mounts of
   * their own.
   */
  setReadOnly(agent: RigProcess, readOnly: boolean): void {
    const mount = ["mount", "-o", `remount,bind,${readOnly ? "ro" : "rw"}`, this.there];
    execFileSync("nsenter", [`--mount=/proc/${agent.pid}/ns/mnt`, ...mount]);
  }

  read(): Buffer {
    return readFileSync(join(this.there, IMAGE));
  }

  /**
   * Has another program on the host open the image for writing.
   * @returns the program, when it has the image. Its stop() lets the image go
   */
  async lock(host: RigHost): Promise<RigProcess> {
    const monitor = join(host.runtimeDirectory, "..", "locker.qmp");
    const machine = "-M pc-q35-8.1 -accel tcg -m 16 -S -nodefaults -no-user-config -display none".split(" ");
    const disk = DISK_ARGUMENTS.map((part) => part.replaceAll("{runtime}", host.runtimeDirectory));
    const command = ["qemu-system-x86_64", ...machine, ...disk, "-qmp", `unix:${monitor},server=on,wait=off`];
    const locker = await this.rig.spawn(host, "a program that has the image", command);
    const has = async (): Promise<true | undefined> => {
      if (!locker.running) throw new Error(`it ended: ${locker.output()}`);
      const qmp = await QmpClient.connect(monitor).catch(() => undefined);
      qmp?.close();
      return qmp === undefined ? undefined : true;
    };
    await eventually(has, { timeoutMs: LOCKS_WITHIN_MS, what: "the lock of the image" });
    return locker;
  }
}

/** Fills a part of the guest's disk, as the guest would do. @throws Error with what QEMU says */
export async function fillDisk(qmp: QmpClient, byte: number, from: string, length: string): Promise<void> {
  const line = `qemu-io d0 "write -P ${byte} ${from} ${length}"`;
  const said = await qmp.execute("human-monitor-command", { "command-line": line });
  if (said !== "") throw new Error(`${line}: ${said}`);
}
