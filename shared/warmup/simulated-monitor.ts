/**
 * A monitor of a QEMU that there is not, and a client that asks it, for a rehearsal. What a migration says to two monitors is text: code
 * that had written nothing but bytes to a socket until then would be thrown away, with all that it was compiled into.
 */
import { rm } from "node:fs/promises";
import { createServer, type Socket } from "node:net";
import { QmpClient } from "../qemu/qmp/qmp-client.ts";
import { QmpLines } from "../qemu/qmp/qmp-lines.ts";

const QUESTIONS = 30;
const GREETING = { QMP: { version: { qemu: { major: 10, minor: 0, micro: 0 }, package: "" }, capabilities: ["oob"] } };
const STATUS = { status: "running", running: true };
const EVENT = { event: "MIGRATION_PASS", data: { pass: 1 }, timestamp: { seconds: 1, microseconds: 1 } };

/** @param path of a socket, gone afterwards @throws MigrationFault as every monitor's client */
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
