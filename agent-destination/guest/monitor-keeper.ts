/**
 * A program of its own that holds the monitor of a QEMU in post-copy: `node monitor-keeper.js`, and one line on its standard input,
 * {"qmp": QEMU's socket, "path": its own}.
 *
 * While pages of a guest are missing, QEMU's main loop may wait for one of them, and takes no new client of its monitor: one
 * that negotiates is answered by the main loop. Only a client that was there before can tell it where the pages come from
 * (migrate-recover, out of band). An agent may end; this stays, and hands the monitor to the next one, as QEMU would.
 * It ends with QEMU, or when it is told {"keeper": "quit"}.
 *
 * It is started ahead of that, and connects when it is told to, since the monitor has one client at a time. Where that input ends
 * before, the agent is gone or needs it not, and it ends too.
 */
import { rmSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { QmpLines, type QmpMessage } from "../../shared/qemu/qmp/qmp-lines.ts";
import { connectToQemu } from "../../shared/runtime/guest/guest-socket.ts";

const ITS_OWN = "keeper";

let ownPath = "";
let greeting: QmpMessage | undefined;
let client: Socket | undefined;

const server = createServer((accepted) => {
  // the newest is the agent that lives
  client?.destroy();
  client = accepted;
  if (greeting !== undefined) say(accepted, greeting);
  read(accepted, (message) => fromAgent(accepted, Object.fromEntries(Object.entries(message))));
});

function fromAgent(agent: Socket, message: Readonly<Record<string, unknown>>): void {
  if (message[ITS_OWN] === "quit") end();
  // negotiated already, with all that there is
  if (message.execute === "qmp_capabilities") say(agent, { return: {}, id: message.id });
  else say(qemu, message);
}

function fromQemu(message: QmpMessage): void {
  if (greeting === undefined) {
    // an event of that moment comes ahead of it
    if (message.QMP === undefined) return;
    greeting = message;
    const capabilities = message.QMP?.capabilities;
    const enable = Array.isArray(capabilities) && capabilities.includes("oob") ? ["oob"] : [];
    say(qemu, { execute: "qmp_capabilities", arguments: { enable }, id: ITS_OWN });
  } else if (message.id === ITS_OWN) server.listen(ownPath);
  else if (client !== undefined) say(client, message);
}

function say(to: Socket | undefined, message: object): void {
  if (to !== undefined && !to.destroyed) to.write(`${JSON.stringify(message)}\r\n`);
}

/** Whoever sends what is no QMP is left; an agent that ends is none of this program's troubles. */
function read(from: Socket, take: (message: QmpMessage) => void): void {
  const lines = new QmpLines();
  from.on("error", () => from.destroy());
  from.on("data", (chunk) => {
    try {
      lines.push(chunk, take);
    } catch {
      from.destroy();
    }
  });
}

function end(): never {
  rmSync(ownPath, { force: true });
  process.exit(0);
}

let qemu: Socket | undefined;

function begin(word: Readonly<Record<string, unknown>>): void {
  if (qemu !== undefined || typeof word.qmp !== "string" || typeof word.path !== "string") return;
  ownPath = word.path;
  // whoever looks at the host's processes sees which QEMU it is for
  process.title = `ferry-monitor-keeper ${word.qmp}`;
  rmSync(ownPath, { force: true });
  qemu = connectToQemu(word.qmp);
  qemu.on("close", end);
  read(qemu, fromQemu);
}

// without this, a terminal that closes would end the keeper of a guest whose pages are missing
process.on("SIGHUP", () => undefined);
const words = new QmpLines();
process.stdin.on("data", (chunk) => words.push(chunk, (word) => begin(Object.fromEntries(Object.entries(word)))));
process.stdin.once("close", () => {
  if (qemu === undefined) process.exit(0);
});
