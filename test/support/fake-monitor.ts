/** QEMU's side of a monitor, which does what a test wants. */
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
  /** Stands in the place of `execute` where QEMU is to carry the command out beside its main loop. */
  readonly "exec-oob"?: string;
}

/** The greeting of a QEMU of the given version. */
export const greetingOf = (qemu: QemuVersion, capabilities: readonly string[] = []) => ({
  QMP: { version: { qemu, package: "" }, capabilities },
});

/** The greeting of a QEMU of a usual version. */
export const greeting = (...capabilities: readonly string[]) =>
  greetingOf({ major: 10, minor: 0, micro: 2 }, capabilities);

/** What the simulated QEMU does with a command. It answers by the monitor's reply(). */
export type Script = (command: Command, monitor: Monitor) => void;

/** QEMU's end of a monitor's socket. It answers the negotiation itself, and leaves all other commands to the script. */
export class Monitor {
  readonly socket: Socket;
  /** All commands so far, in order. */
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

  /** Sends one message. */
  reply(message: unknown): void {
    this.raw(`${JSON.stringify(message)}\r\n`);
  }

  /** Sends bytes as they are. */
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
