/** QEMU's side of a monitor, that does what a test wants. */
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Test } from "tap";
import type { QemuVersion } from "../../shared/qemu/qmp/qmp-types.ts";

export interface Command {
  readonly execute: string;
  readonly arguments?: Record<string, unknown>;
  readonly id: number;
}

/** What a QEMU of a version says first. */
export const greetingOf = (qemu: QemuVersion, capabilities: readonly string[] = []) => ({
  QMP: { version: { qemu, package: "" }, capabilities },
});

/** What a QEMU says first. */
export const greeting = (...capabilities: readonly string[]) =>
  greetingOf({ major: 10, minor: 0, micro: 2 }, capabilities);

/** What the fake QEMU does with a command; `reply` sends one message. */
export type Script = (command: Command, monitor: Monitor) => void;

/** The other end of a monitor's socket: takes the negotiation, leaves the other commands to the script. */
export class Monitor {
  readonly socket: Socket;
  readonly commands: Command[] = [];

  constructor(socket: Socket, script: Script) {
    this.socket = socket;
    let text = "";
    socket.on("error", () => undefined);
    socket.on("data", (chunk) => {
      text += chunk.toString();
      const lines = text.split("\r\n");
      text = lines.pop() ?? "";
      for (const line of lines) {
        const command: Command = JSON.parse(line);
        this.commands.push(command);
        if (command.execute === "qmp_capabilities") this.reply({ return: {}, id: command.id });
        else script(command, this);
      }
    });
  }

  reply(message: unknown): void {
    this.raw(`${JSON.stringify(message)}\r\n`);
  }

  raw(bytes: string | Uint8Array): void {
    this.socket.write(bytes);
  }
}

/** Listens on a unix socket until the test ends. @returns its path */
export async function serve(t: Test, onConnection: (socket: Socket) => void): Promise<string> {
  const directory = mkdtempSync(join(tmpdir(), "ferry-qmp-"));
  const path = join(directory, "qmp");
  const sockets: Socket[] = [];
  const server: Server = createServer((socket) => {
    sockets.push(socket);
    onConnection(socket);
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
    rmSync(directory, { recursive: true });
  });
  return path;
}
