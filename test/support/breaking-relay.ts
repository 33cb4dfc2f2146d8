/**
 * A network between the two ends of a transfer stream. It can end a connection at any message, in every way that there
 * is. It reads HTTP/2 frames in clear, counts the gRPC messages in them, and sends what proxies, kernels and libraries
 * send when they end a connection.
 */
import { connect, createServer, type Server, type Socket } from "node:net";

/** The end to which something goes. The source serves, and the destination dials. */
export type End = "source" | "destination";

/** When and how a connection is ended: after `after` messages to the end `to`. Nothing of the next message is sent. */
export interface Strike {
  readonly to: End;
  readonly after: number;
  readonly way: Way;
}

/** A way to end a connection. */
export interface Way {
  readonly name: string;
  readonly end: (connection: RelayedConnection) => void;
}

/** The length of HTTP/2's preface, which a client sends first. */
const PREFACE_BYTES = 24;
/** The length of the head of an HTTP/2 frame. */
const HEAD_BYTES = 9;
const TYPE = { data: 0, headers: 1, reset: 3, goAway: 7 } as const;
const END_STREAM = 1;
const END_STREAM_AND_HEADERS = 5;

function frame(type: number, flags: number, stream: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(HEAD_BYTES);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

const word = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
};

/** Encodes a header field by HPACK, as one that is in no table and is not to be put into one. */
export const field = (name: string, value: string): Buffer =>
  Buffer.concat([Buffer.of(0, name.length), Buffer.from(name), Buffer.of(value.length), Buffer.from(value)]);
/** Encodes `:status`, which is number 8 of HPACK's static table. */
const httpStatus = (code: number): Buffer => Buffer.concat([Buffer.of(8, 3), Buffer.from(String(code))]);

/** One direction of a connection. Whole frames are passed on, and in the end data up to the message of the strike. */
class Direction {
  /** How many whole messages went this way. */
  messages = 0;
  /** True after the stream's headers went this way. */
  hasBegun = false;
  private unread = Buffer.alloc(0);
  private prefaceBytes: number;
  /** How many bytes of the present message are still to come. */
  private left = 0;
  private head = Buffer.alloc(0);

  constructor(toSource: boolean) {
    this.prefaceBytes = toSource ? PREFACE_BYTES : 0;
  }

  /**
   * Takes bytes that have come.
   * @param after the number of messages after which the strike comes
   * @returns the bytes to be passed on, whether the strike has come, and the number of the stream in the frames
   */
  take(bytes: Buffer, after: number): { readonly out: Buffer; readonly struck: boolean; readonly stream: number } {
    this.unread = Buffer.concat([this.unread, bytes]);
    const out: Buffer[] = [];
    let stream = 0;
    const next = (length: number): Buffer => {
      const taken = this.unread.subarray(0, length);
      this.unread = this.unread.subarray(length);
      return taken;
    };
    if (this.prefaceBytes > 0) {
      if (this.unread.length < this.prefaceBytes) return { out: Buffer.alloc(0), struck: false, stream };
      out.push(next(this.prefaceBytes));
      this.prefaceBytes = 0;
    }
    while (this.unread.length >= HEAD_BYTES) {
      const length = this.unread.readUIntBE(0, 3);
      if (this.unread.length < HEAD_BYTES + length) break;
      const [type, flags, of] = [this.unread[3], this.unread[4] ?? 0, this.unread.readUInt32BE(5) & 0x7fffffff];
      const whole = next(HEAD_BYTES + length);
      if (of !== 0) stream = of;
      if (type === TYPE.headers && after === 0) return { out: Buffer.concat(out), struck: true, stream };
      if (type === TYPE.headers) this.hasBegun = true;
      const most = type === TYPE.data ? this.count(whole.subarray(HEAD_BYTES), after) : undefined;
      if (most !== undefined) {
        // the flag END_STREAM, which may be in the same frame, is left out
        out.push(frame(TYPE.data, flags & ~END_STREAM, of, whole.subarray(HEAD_BYTES, HEAD_BYTES + most)));
        return { out: Buffer.concat(out), struck: true, stream };
      }
      out.push(whole);
    }
    return { out: Buffer.concat(out), struck: false, stream };
  }

  /**
   * Counts the messages in data.
   * @returns where message number `after` ends, or undefined if it does not end in here
   */
  private count(data: Buffer, after: number): number | undefined {
    let at = 0;
    while (at < data.length) {
      if (this.left === 0) {
        const some = data.subarray(at, at + 5 - this.head.length);
        this.head = Buffer.concat([this.head, some]);
        at += some.length;
        if (this.head.length < 5) break;
        this.left = this.head.readUInt32BE(1);
        this.head = Buffer.alloc(0);
      }
      const step = Math.min(this.left, data.length - at);
      this.left -= step;
      at += step;
      if (this.left === 0 && this.head.length === 0 && ++this.messages === after) return at;
    }
    return undefined;
  }
}

export class RelayedConnection {
  /** The socket to the destination. */
  readonly near: Socket;
  /** The socket to the source. */
  readonly far: Socket;
  private readonly directions: Readonly<Record<End, Direction>> = {
    source: new Direction(true),
    destination: new Direction(false),
  };
  /** The ends to which nothing of the other end is passed on any more. */
  private readonly deaf = new Set<End>();
  private readonly strike: Strike | undefined;
  private readonly onStruck: () => void;
  private stream = 1;
  private struck = false;
  /** What has come since hold(); undefined while everything is passed on. */
  private held: { readonly to: End; readonly bytes: Buffer | "end" }[] | undefined;

  constructor(near: Socket, far: Socket, strike: Strike | undefined, onStruck: () => void) {
    this.near = near;
    this.far = far;
    this.strike = strike;
    this.onStruck = onStruck;
    for (const [socket, to] of [
      [near, "source"],
      [far, "destination"],
    ] as const) {
      socket.setNoDelay(true);
      socket.on("data", (bytes: Buffer) => this.take(to, bytes));
      socket.on("end", () => this.passEnd(to));
      socket.on("error", () => this.socket(to).destroy());
    }
  }

  private socket(to: End): Socket {
    return to === "source" ? this.far : this.near;
  }

  private take(to: End, bytes: Buffer): void {
    if (this.deaf.has(to)) return;
    if (this.held !== undefined) {
      this.held.push({ to, bytes });
      return;
    }
    const { strike } = this;
    const after = !this.struck && strike?.to === to ? strike.after : Number.POSITIVE_INFINITY;
    const { out, struck, stream } = this.directions[to].take(bytes, after);
    if (stream !== 0) this.stream = stream;
    if (out.length > 0) this.socket(to).write(out);
    if (!struck || strike === undefined) return;
    this.struck = true;
    this.deaf.add(to);
    this.onStruck();
    strike.way.end(this);
  }

  private passEnd(to: End): void {
    if (this.held !== undefined) this.held.push({ to, bytes: "end" });
    else this.socket(to).end();
  }

  /** From now on nothing is passed on and nothing is lost, as with TCP over a link that is down. */
  hold(): void {
    this.held = [];
  }

  /** Passes on what was held, and everything that follows, as with a link that is back. */
  release(): void {
    const { held } = this;
    this.held = undefined;
    for (const { to, bytes } of held ?? []) {
      if (bytes === "end") this.passEnd(to);
      else this.take(to, bytes);
    }
  }

  /** From now on nothing of either end reaches the other end. */
  part(): void {
    this.deaf.add("source").add("destination");
  }

  fin(...ends: readonly End[]): void {
    for (const end of ends) this.socket(end).end();
  }

  rst(...ends: readonly End[]): void {
    for (const end of ends) this.socket(end).resetAndDestroy();
  }

  private say(to: End, bytes: Buffer): void {
    this.deaf.add(to);
    this.socket(to).write(bytes);
  }

  resetStream(to: End, code: number): void {
    this.say(to, frame(TYPE.reset, 0, this.stream, word(code)));
  }

  goAway(to: End, code: number, lastStream = this.stream): void {
    this.say(to, frame(TYPE.goAway, 0, 0, Buffer.concat([word(lastStream), word(code)])));
  }

  endStream(to: End): void {
    this.say(to, frame(TYPE.data, END_STREAM, this.stream, Buffer.alloc(0)));
  }

  /** Sends headers to the destination that end the stream, as a server or a proxy before it does. */
  answer(...fields: readonly Buffer[]): void {
    const { hasBegun } = this.directions.destination;
    const first = hasBegun ? [] : [httpStatus(200), field("content-type", "application/grpc")];
    this.say(
      "destination",
      frame(TYPE.headers, END_STREAM_AND_HEADERS, this.stream, Buffer.concat([...first, ...fields])),
    );
  }

  answerHttp(code: number): void {
    if (this.directions.destination.hasBegun) this.resetStream("destination", 2);
    else this.say("destination", frame(TYPE.headers, END_STREAM_AND_HEADERS, this.stream, httpStatus(code)));
  }

  destroy(): void {
    this.near.destroy();
    this.far.destroy();
  }
}

export class BreakingRelay {
  readonly port: number;
  readonly connections: RelayedConnection[] = [];
  /** How many strikes have come. */
  struck = 0;
  private readonly server: Server;

  /**
   * Opens a relay to a port of the loopback.
   * @param strikes one for each connection, in the order of the connections. Later connections are never struck
   */
  static async open(port: number, strikes: readonly (Strike | undefined)[] = []): Promise<BreakingRelay> {
    const server = createServer({ allowHalfOpen: true });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return new BreakingRelay(server, port, strikes);
  }

  private constructor(server: Server, port: number, strikes: readonly (Strike | undefined)[]) {
    const address = server.address();
    if (address === null || typeof address === "string") throw new TypeError("no port");
    this.port = address.port;
    this.server = server;
    server.on("connection", (near) => {
      const far = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
      const onStruck = (): void => {
        this.struck++;
      };
      this.connections.push(new RelayedConnection(near, far, strikes[this.connections.length], onStruck));
    });
  }

  close(): void {
    for (const one of this.connections) one.destroy();
    this.server.close();
  }
}
