/**
 * A real QEMU with a paused guest that may have a disk, as the destination agent has it before the grant. The guest is
 * loaded from a file.
 */

import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Test } from "tap";
import { GuestProcess } from "../../agent-destination/guest/guest-process.ts";
import { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import type { GuestDefinition } from "../../shared/runtime/guest/guest-definition.ts";
import { eventually } from "./bounded.ts";
import { folder } from "./link-fixtures.ts";
import { RigProcess } from "./process.ts";
import { mountAgain } from "./shared-images.ts";
import { atTeardown } from "./teardown.ts";

const WITHIN = { timeoutMs: 20_000 };
const QEMU = "qemu-system-x86_64";
const MACHINE = "-M pc-q35-8.1 -accel tcg -m 48 -nodefaults -no-user-config -display none".split(" ");

export interface Disk {
  /** The path of the image at the first host, and at the second host. */
  readonly here: string;
  readonly there: string;
  /** Makes the image read-only, or writable again, for the second host. */
  setReadOnly(readOnly: boolean): void;
}

/** Makes an image in a directory that is mounted a second time. Needs root. */
export function mountedDisk(t: Test): Disk {
  const directory = folder(t);
  const [here, there] = [join(directory, "a"), join(directory, "b")];
  for (const one of [here, there]) mkdirSync(one);
  writeFileSync(join(here, "d.raw"), Buffer.alloc(1 << 20));
  mountAgain(t, here, there);
  return {
    here: join(here, "d.raw"),
    there: join(there, "d.raw"),
    setReadOnly: (readOnly) => void execFileSync("mount", ["-o", `remount,bind,${readOnly ? "ro" : "rw"}`, there]),
  };
}

const diskOf = (image: string | undefined): readonly string[] =>
  image === undefined ? [] : ["-drive", `file=${image},format=raw,if=none,id=d0`, "-device", "virtio-blk-pci,drive=d0"];

/** Starts a QEMU that has the image for writing. @returns when the QEMU answers, and so has the image */
export async function startQemu(t: Test, image: string | undefined, extra: readonly string[] = []) {
  const socket = join(folder(t), "qmp");
  const command = [QEMU, ...MACHINE, ...diskOf(image), "-qmp", `unix:${socket},server=on,wait=off`, ...extra];
  const qemu = await RigProcess.start({ name: "a QEMU", command });
  t.teardown(() => qemu.stop());
  const connect = async (): Promise<QmpClient | undefined> => {
    if (!qemu.running) throw new Error(`it ended: ${qemu.output()}`);
    return await QmpClient.connect(socket).catch(() => undefined);
  };
  const qmp = await eventually(connect, { ...WITHIN, what: "its monitor" });
  t.teardown(() => qmp.close());
  return { qemu, qmp, socket };
}

async function migrated(qmp: QmpClient): Promise<void> {
  const done = async (): Promise<true | undefined> => {
    const { status, "error-desc": why } = await qmp.execute("query-migrate");
    if (status === "failed") throw new Error(`the migration failed: ${why}`);
    return status === "completed" ? true : undefined;
  };
  await eventually(done, { ...WITHIN, what: "the migration" });
}

export interface LoadedQemu {
  readonly guest: GuestProcess;
  readonly definition: GuestDefinition;
  /** The monitor of the guest's source, which is in `postmigrate`. */
  readonly source: QmpClient;
}

/** Starts a source, migrates its guest to a file after it has run for a moment, and loads the guest from the file. */
export async function loadedQemu(t: Test, disk?: Pick<Disk, "here" | "there">): Promise<LoadedQemu> {
  const runtimeDirectory = folder(t);
  const file = join(runtimeDirectory, "stream");
  const { qmp: source } = await startQemu(t, disk?.here);
  await source.execute("migrate", { uri: `file:${file}` });
  await migrated(source);
  const qmp = join(runtimeDirectory, "web.qmp");
  const monitor = ["-qmp", `unix:${qmp},server=on,wait=off`];
  const command = [QEMU, ...MACHINE, ...diskOf(disk?.there), ...monitor] as const;
  const own = { directory: runtimeDirectory, digest: "" };
  const definition: GuestDefinition = { name: "web", qmp, command: [...command], ...own };
  const signal = new AbortController().signal;
  const guest = await GuestProcess.start(definition, {
    migration: `loaded-${process.pid}`,
    runtimeDirectory,
    timeoutMs: 20_000,
    signal,
  });
  const forget = atTeardown(() => process.kill(guest.process.pid, "SIGKILL"));
  t.teardown(async () => {
    forget();
    await guest.discard();
  });
  await guest.qmp.execute("migrate-incoming", { uri: `file:${file}` });
  await migrated(guest.qmp);
  return { guest, definition, source };
}
