/**
 * Does everything that somebody hostile may do to the port of an agent from outside, again and again at a given pace.
 * It is a program of its own, `node hostile.js` with one line of JSON on its standard input, so that it does not slow
 * down the program that measures. It prints how much it has done as one line of JSON.
 */
import { connect as connectHttp2 } from "node:http2";
import { connect, type Socket } from "node:net";
import { text } from "node:stream/consumers";
import { connect as connectTls } from "node:tls";
import { connectDestination, dialSource } from "../../shared/link/grpc/grpc-link.ts";
import { readCertificates, type TlsFiles } from "../../shared/runtime/files/certificates.ts";
import { hello, offer } from "../support/link-fixtures.ts";
import { security } from "../support/tls.ts";

export interface Flood {
  readonly host: string;
  readonly port: number;
  /** Whose port it is: a source agent's, which is sent hellos, or a destination agent's, which is sent handshakes. */
  readonly role: "source" | "destination";
  /** A certificate that is on no list. */
  readonly stranger: TlsFiles;
  /** A certificate on the list of peers, of a host that has been taken over. */
  readonly peer: TlsFiles;
  /** How many connections are made and how many messages are sent, in so many seconds. */
  readonly connections: number;
  readonly messages: number;
  readonly seconds: number;
}

/** How much a flood has done. `answered` counts all answers of the agent, refusals included. */
export interface Done {
  readonly connections: number;
  readonly messages: number;
  readonly answered: number;
}

/** How long a hostile connection is held, milliseconds, where the agent does not end it. */
const HELD_MS = 5000;
/** The pause between two bursts of connections and messages, milliseconds. */
const EVERY_MS = 20;
/** From how many addresses of the loopback the strangers come. The peer comes from 127.0.0.1, as the agents do. */
const ADDRESSES = 200;

class Hostile {
  readonly done = { connections: 0, messages: 0, answered: 0 };
  private readonly of: Flood;
  private readonly stranger;
  private readonly peer;
  private session: ReturnType<typeof connectHttp2> | undefined;
  private turn = 0;

  constructor(of: Flood) {
    this.of = of;
    this.stranger = readCertificates(of.stranger);
    this.peer = readCertificates(of.peer);
  }

  /** Opens one more connection, of the next kind. */
  connectOnce(): void {
    const { host, port } = this.of;
    const index = this.done.connections++;
    const localAddress = host.startsWith("127.") ? `127.1.${index % 2}.${1 + (index % ADDRESSES)}` : undefined;
    const target = { host, port, ...(localAddress === undefined ? {} : { localAddress }) };
    const { ca, certificate, key } = this.stranger;
    const tls = {
      ...target,
      ca,
      ALPNProtocols: ["h2"],
      servername: "ferry.invalid",
      checkServerIdentity: () => undefined,
    };
    const kinds: readonly (() => Socket)[] = [
      () => connect(target),
      () => this.saying(connect(target), "GET / HTTP/1.1\r\nhost: x\r\n\r\n"),
      // a record of TLS that says it is longer than what comes
      () => this.saying(connect(target), Buffer.from([22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3])),
      () => this.saying(connect(target), Buffer.alloc(1 << 16, 0xff)),
      () => connectTls(tls),
      () => this.refused(connectTls({ ...tls, cert: certificate, key })),
    ];
    const socket = kinds[index % kinds.length]?.();
    if (socket === undefined) return;
    socket.on("error", () => socket.destroy());
    socket.resume();
    setTimeout(() => socket.destroy(), HELD_MS).unref();
  }

  /** Sends one more message, of the next kind. */
  sayOnce(): void {
    this.done.messages++;
    const kinds = [() => this.unknownMethod(), () => this.ping(), () => this.wrongType(), () => this.peersCall()];
    // the last kind costs the agent far more, and comes once in 200 turns
    kinds[this.turn++ % 200 === 0 ? 3 : this.turn % 3]?.();
  }

  end(): void {
    this.session?.destroy();
  }

  private saying(socket: Socket, what: Buffer | string): Socket {
    socket.write(what);
    return socket;
  }

  /** Makes calls that a stranger may not make, over and over on one connection. */
  private refused(socket: Socket): Socket {
    const session = connectHttp2("https://ferry.invalid", { createConnection: () => socket });
    session.on("error", () => session.destroy());
    for (let i = 0; i < 10; i++) {
      this.done.messages++;
      this.request(session, "/ferry.v1.MigrationService/ListMigrations", "application/grpc");
    }
    return socket;
  }

  private unknownMethod(): void {
    this.request(this.peerSession(), `/no.such.Service/Method${this.turn}`, "application/grpc");
  }

  private wrongType(): void {
    this.request(this.peerSession(), "/ferry.v1.DestinationService/Handshake", "text/html");
  }

  private ping(): void {
    const session = this.peerSession();
    if (!session.destroyed) session.ping(() => this.done.answered++);
  }

  private request(session: ReturnType<typeof connectHttp2>, path: string, type: string): void {
    if (session.destroyed || session.closed) return;
    const stream = session.request({ ":method": "POST", ":path": path, "content-type": type }, { endStream: true });
    stream.on("error", () => undefined);
    stream.on("response", () => this.done.answered++);
    stream.resume();
  }

  private peerSession(): ReturnType<typeof connectHttp2> {
    if (this.session !== undefined && !this.session.destroyed && !this.session.closed) return this.session;
    const { host, port } = this.of;
    const { ca, certificate: cert, key } = this.peer;
    const made = connectHttp2(`https://${host}:${port}`, { ca, cert, key, checkServerIdentity: () => undefined });
    this.done.connections++;
    made.on("error", () => made.destroy());
    this.session = made;
    return made;
  }

  /**
   * Sends a valid message that the agent must refuse: a handshake of a guest that does not exist, or a hello with a
   * wrong token.
   */
  private peersCall(): void {
    const { host, port, role } = this.of;
    const limits = {
      receiveWindowBytes: 1 << 16,
      messageBytes: 1 << 20,
      security: security(this.peer, { peers: ["a", "b"] }),
    };
    this.done.connections++;
    if (role === "destination") {
      const client = connectDestination(`${host}:${port}`, limits);
      const guest = { ...offer.guest, name: "x".repeat(200) };
      client
        .handshake({ ...offer, migrationId: `m${this.turn}`, sourceAddress: "127.0.0.1:1", guest }, HELD_MS)
        .then(
          () => this.done.answered++,
          () => this.done.answered++,
        )
        .finally(() => client.close());
      return;
    }
    const channel = dialSource(`${host}:${port}`, limits);
    channel.receive(() => undefined);
    channel.send({ ...hello, migrationId: `m${this.turn}` });
    void channel.closed.then(() => this.done.answered++);
    setTimeout(() => channel.close(), HELD_MS).unref();
  }
}

/** Spreads all connections and messages evenly over the time of the flood. */
async function run(of: Flood): Promise<Done> {
  const hostile = new Hostile(of);
  const begun = performance.now();
  const due = (number: number): number =>
    Math.min(number, (number * (performance.now() - begun)) / (of.seconds * 1000));
  await new Promise<void>((resolve) => {
    const timer = setInterval(() => {
      while (hostile.done.connections < due(of.connections)) hostile.connectOnce();
      while (hostile.done.messages < due(of.messages)) hostile.sayOnce();
      if (hostile.done.connections < of.connections || hostile.done.messages < of.messages) return;
      clearInterval(timer);
      resolve();
    }, EVERY_MS);
  });
  hostile.end();
  return hostile.done;
}

const of: Flood = JSON.parse(await text(process.stdin));
process.on("uncaughtException", (thrown) => process.stderr.write(`${thrown}\n`));
const done = await run(of);
process.stdout.write(`${JSON.stringify(done)}\n`, () => process.exit(0));
