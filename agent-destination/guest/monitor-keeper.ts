/**
 * The keeper: a program of its own that holds the monitor of a QEMU in post-copy. It is started as
 * `node monitor-keeper.js`, and told to begin by one line on its standard input:
 * `{"qmp": "QEMU's socket", "path": "the keeper's socket"}`.
 *
 * While pages of a guest are missing, QEMU's main loop may wait for one of them. It then takes no new client of its
 * monitor, because the main loop answers the negotiation of a client. Only a client that was connected before can tell
 * QEMU where the pages come from (`migrate-recover`, out of band). An agent may end; the keeper stays, and passes the
 * monitor on to the next agent, which it greets as QEMU would. The keeper ends with QEMU, or when an agent tells it
 * `{"keeper": "quit"}`.
 *
 * The keeper is started before it is needed, and connects only when it is told to, since the monitor has one client at
 * a time. If its standard input ends before that, the agent has ended or does not need the keeper, and the keeper ends
 * too.
 */
import { createServer, type Socket } from "node:net";
import { QmpLines, type QmpMessage } from "../../shared/qemu/qmp/qmp-lines.ts";
import { removeLeftNow } from "../../shared/runtime/files/remove-left.ts";
import { connectToQemu } from "../../shared/runtime/guest/guest-socket.ts";

/** The key of messages that are for the keeper itself, and the id of its own command to QEMU. */
const ITS_OWN = "keeper";

/** The path of the keeper's socket; empty until it is told to begin. */
let ownPath = "";
/** The greeting of QEMU; the keeper sends it to each agent that connects. */
let greeting: QmpMessage | undefined;
/** The connection of the agent. */
let client: Socket | undefined;

const server = createServer((accepted) => {
  // the newest client is the agent that runs now
  client?.destroy();
  client = accepted;
  if (greeting !== undefined) say(accepted, greeting);
  read(accepted, (message) => fromAgent(accepted, Object.fromEntries(Object.entries(message))));
});

/** Passes what the agent says on to QEMU, except for what the keeper answers itself. */
function fromAgent(agent: Socket, message: Readonly<Record<string, unknown>>): void {
  if (message[ITS_OWN] === "quit") end();
  // the keeper has negotiated with QEMU already, for every capability that QEMU has
  if (message.execute === "qmp_capabilities") say(agent, { return: {}, id: message.id });
  else say(qemu, message);
}

/**
 * Negotiates with QEMU first, and listens for an agent after that. From then on it passes what QEMU says on to the
 * agent.
 */
function fromQemu(message: QmpMessage): void {
  if (greeting === undefined) {
    // an event may come before the greeting
    if (message.QMP === undefined) return;
    greeting = message;
    const capabilities = message.QMP?.capabilities;
    const enable = Array.isArray(capabilities) && capabilities.includes("oob") ? ["oob"] : [];
    say(qemu, { execute: "qmp_capabilities", arguments: { enable }, id: ITS_OWN });
  } else if (message.id === ITS_OWN) server.listen(ownPath);
  else if (client !== undefined && !say(client, message)) hold(client);
}

/** Stops reading from QEMU until the agent has read what the keeper sent to it, so that the keeper buffers little. */
function hold(agent: Socket): void {
  if (qemu === undefined || qemu.isPaused()) return;
  qemu.pause();
  const goOn = (): void => {
    agent.off("drain", goOn).off("close", goOn);
    qemu?.resume();
  };
  agent.on("drain", goOn).on("close", goOn);
}

/** Sends a message, unless the connection has ended. @returns false when the other end is behind with reading */
function say(to: Socket | undefined, message: object): boolean {
  return to === undefined || to.destroyed || to.write(`${JSON.stringify(message)}\r\n`);
}

/**
 * Reads the messages of a connection. A connection that brings something else than QMP is closed. When an agent ends,
 * only its connection ends: the keeper goes on.
 */
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

/** Ends the keeper and removes its socket. */
function end(): never {
  removeLeftNow(ownPath);
  process.exit(0);
}

/** The connection to QEMU; undefined until the keeper is told to begin. */
let qemu: Socket | undefined;

/** Connects to QEMU. Only the first line that names both sockets counts. */
function begin(word: Readonly<Record<string, unknown>>): void {
  if (qemu !== undefined || typeof word.qmp !== "string" || typeof word.path !== "string") return;
  ownPath = word.path;
  // in a list of the host's processes this title tells which QEMU the keeper is for
  process.title = `ferry-monitor-keeper ${word.qmp}`;
  removeLeftNow(ownPath);
  qemu = connectToQemu(word.qmp);
  qemu.on("close", end);
  read(qemu, fromQemu);
}

// without this listener a terminal that closes would end the keeper of a guest whose pages are missing
process.on("SIGHUP", () => undefined);
const words = new QmpLines();
process.stdin.on("data", (chunk) => words.push(chunk, (word) => begin(Object.fromEntries(Object.entries(word)))));
process.stdin.once("close", () => {
  if (qemu === undefined) process.exit(0);
});
