/**
 * A simulated monitor and a client that asks it questions, for the warm-up. A migration speaks to monitors in text. V8
 * throws compiled code away when the code meets something new. Code that had only written bytes to sockets would be
 * thrown away at the first text, together with all code that it was compiled into
 * (docs/design/warm-up.md#what-the-warm-up-must-contain).
 */
import { rm } from "node:fs/promises";
import { createServer, type Socket } from "node:net";
import { QmpClient } from "../qemu/qmp/qmp-client.ts";
import { QmpLines } from "../qemu/qmp/qmp-lines.ts";

const QUESTIONS = 30;
const GREETING = { QMP: { version: { qemu: { major: 10, minor: 0, micro: 0 }, package: "" }, capabilities: ["oob"] } };
const STATUS = { status: "running", running: true };
const EVENT = { event: "MIGRATION_PASS", data: { pass: 1 }, timestamp: { seconds: 1, microseconds: 1 } };

/**
 * Starts a simulated monitor, asks it QUESTIONS times for its status, and stops it.
 * @param path the path of the monitor's socket; a file that is there before is removed, and so is the socket at the end
 * @throws MigrationFault as the client of a real monitor does
 */
export async function askSimulatedMonitor(path: string, signal: AbortSignal): Promise<void> {
  await rm(path, { force: true });
  const server = createServer(answer);
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(path, resolve);
  });
  try {
    const client = await QmpClient.connect(path, { signal });
    try {
      for (let asked = 0; asked < QUESTIONS; asked++) await client.execute("query-status", undefined, { signal });
    } finally {
      client.close();
    }
  } finally {
    server.close();
    await rm(path, { force: true });
  }
}

function answer(socket: Socket): void {
  const lines = new QmpLines();
  const say = (message: object): void => {
    socket.write(`${JSON.stringify(message)}\r\n`);
  };
  socket.on("error", () => undefined);
  socket.on("data", (chunk) =>
    lines.push(chunk, ({ id }) => {
      say(EVENT);
      say({ return: STATUS, id });
    }),
  );
  say(GREETING);
}
