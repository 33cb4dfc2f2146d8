/**
 * The drives of a simulated QEMU, whose media are real files. The process of the test opens these files, so that it can
 * stand for the process of the QEMU.
 */
import { closeSync, openSync, statSync } from "node:fs";
import { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import { type Command, greeting, Monitor, serve } from "./fake-monitor.ts";
import type { Test } from "./link-fixtures.ts";

export interface FakeMedium {
  readonly file: string;
  /** @default "raw" */
  readonly format?: string;
  /** @default false */
  readonly writable?: boolean;
}

export class FakeDrives {
  /** The commands that have changed something, with their arguments. */
  readonly said: Pick<Command, "execute" | "arguments">[] = [];
  /** Called before a file is opened. */
  beforeOpen: (file: string) => void = () => undefined;
  /** The text of the error with which each change is answered. */
  error: string | undefined;
  private readonly drives = new Map<string, FakeMedium | undefined>();
  private readonly open = new Map<string, number>();

  /** @param drives the medium of each removable drive, by the drive's name */
  constructor(t: Test, drives: Readonly<Record<string, FakeMedium | undefined>>) {
    for (const [name, medium] of Object.entries(drives)) this.put(name, medium);
    t.teardown(() => {
      for (const name of this.drives.keys()) this.put(name, undefined);
    });
  }

  /** Connects to the monitor of this QEMU. */
  async connect(t: Parameters<typeof serve>[0]): Promise<QmpClient> {
    const path = await serve(t, (socket) => {
      const monitor: Monitor = new Monitor(socket, (command) => monitor.reply(this.answer(command)));
      monitor.reply(greeting());
    });
    const qmp = await QmpClient.connect(path);
    t.teardown(() => qmp.close());
    return qmp;
  }

  /** Puts a medium into a drive, or empties the drive, as a definition does. */
  put(name: string, medium: FakeMedium | undefined): void {
    const before = this.open.get(name);
    if (before !== undefined) closeSync(before);
    this.open.delete(name);
    this.drives.set(name, medium);
    if (medium === undefined) return;
    this.beforeOpen(medium.file);
    this.open.set(name, openSync(medium.file, "r"));
  }

  private answer({ execute, arguments: given = {}, id }: Command): object {
    const isChange = execute === "eject" || execute === "blockdev-change-medium";
    if (!isChange) return { return: this.tell(execute), id };
    this.said.push({ execute, arguments: given });
    if (this.error !== undefined) return { error: { class: "GenericError", desc: this.error }, id };
    const { filename, format, "read-only-mode": mode } = given;
    const medium = { file: String(filename), format: String(format), writable: mode === "read-write" };
    this.put(String(given.id).replace(/^qdev-/, ""), execute === "eject" ? undefined : medium);
    return { return: {}, id };
  }

  private tell(execute: string): unknown {
    const drives = [...this.drives];
    if (execute === "query-block")
      return drives.map(([device, medium]) => ({
        ...{ device, qdev: `qdev-${device}`, removable: true },
        ...(medium === undefined ? {} : { inserted: { image: imageOf(medium) } }),
      }));
    if (execute !== "query-named-block-nodes") return execute === "human-monitor-command" ? "" : [];
    return drives.flatMap(([, medium]) =>
      medium === undefined ? [] : ["raw", "file"].map((drv) => ({ drv, file: medium.file, ro: !medium.writable })),
    );
  }
}

const imageOf = ({ file, format = "raw" }: FakeMedium): object => ({
  ...{ filename: file, format },
  "virtual-size": statSync(file).size,
});
