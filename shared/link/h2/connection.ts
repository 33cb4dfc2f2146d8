/**
 * One connection of the client by hand, which is Ferry's own HTTP/2 client (docs/design/wire.md#the-client-by-hand).
 * The connection has one stream. This file has HTTP/2's rules for connections (RFC 9113), and nothing of gRPC's calls,
 * which are in channel-by-hand.ts.
 *
 *     socket ──> FrameReader ──data──> ReceiveWindow ──> Inbox ──> call
 *     socket <── preface, SETTINGS, acknowledgements, PING, WINDOW_UPDATE, and the Outbox's DATA
 *
 * The socket is read all the time, so that PINGs are answered while no message is taken. What comes meanwhile is
 * bounded by the receive windows, which open only as far as messages are taken.
 *
 * Invariants: nothing that a peer sends makes this file throw; a call hears of the end of its stream once, and of
 * nothing afterwards; a socket is closed at most LEAVES_WITHIN_MS after its connection is over.
 */
import type { Socket } from "node:net";
import { MigrationFault } from "../../fault.ts";
import type { Clock } from "../../runtime/clock.ts";
import { KEEP_ALIVE_MS, type LinkLimits } from "../link.ts";
import { zoneMistake } from "../listen/zones.ts";
import type { CallTerms } from "../tls/security.ts";
import { FrameReader, type FrameTaker } from "./frame-reader.ts";
import * as frames from "./frames.ts";
import { decodeHeaders, encodeHeaders, HEADER_LIST_BYTES_MAX, type HeaderField } from "./hpack.ts";
import { Inbox } from "./inbox.ts";
import { KeepAlive } from "./keep-alive.ts";
import { ERROR, type ErrorCode, NotUnderstood } from "./not-understood.ts";
import { openSocket } from "./open-socket.ts";
import { Outbox } from "./outbox.ts";
import { ReceiveWindow } from "./receive-window.ts";
import { type StreamStatus, unavailable } from "./stream-status.ts";

/**
 * How many bytes may wait in the socket for a peer that does not read. While the socket is full, messages wait in the
 * outbox, so only answers go on adding up: beyond this number the agent cuts off a peer that asks by PING or SETTINGS
 * and reads nothing.
 */
const UNREAD_BYTES_MAX = 1 << 20;
/** How long the last frames of a connection may take to leave, milliseconds. The socket is closed after that. */
const LEAVES_WITHIN_MS = 1000;
const PING_PAYLOAD = Buffer.from("ferry h2");

/** The call that the stream of a connection carries. Nothing is called after over(). */
export interface Call {
  /** Takes a whole message, whose memory is valid until this method returns. */
  message(bytes: Buffer): void;
  /** Takes headers, or the trailers with which the stream ends. @throws NotUnderstood */
  headers(fields: readonly HeaderField[], endsStream: boolean): void;
  /** The peer has ended the stream without trailers. @throws NotUnderstood */
  ended(): void;
  /** The peer has reset the stream. */
  reset(errorCode: number): void;
  /** More may be sent. */
  drained(): void;
  /** The stream is over by a fault, or with its connection. */
  over(why: StreamStatus | MigrationFault): void;
}

interface ConnectionOptions {
  readonly address: string;
  readonly terms: CallTerms;
  readonly limits: LinkLimits;
  readonly clock: Clock;
}

export class Connection implements FrameTaker {
  readonly inbox: Inbox;
  readonly outbox: Outbox;
  private readonly options: ConnectionOptions;
  private readonly socket: Socket;
  private readonly reader = new FrameReader(this);
  private readonly keepAlive: KeepAlive;
  private readonly whole: ReceiveWindow;
  private readonly stream: ReceiveWindow;
  private call: Call | undefined;
  private request: readonly HeaderField[] = [];
  /** True once the socket is connected, and its certificate accepted. */
  private isConnected = false;
  /** True once the peer has shown that it speaks HTTP/2. */
  private isGreeted = false;
  private hasHeaders = false;
  private lastError: Error | undefined;
  private over = false;

  /** Begins to connect. */
  constructor(options: ConnectionOptions) {
    this.options = options;
    const { address, terms, limits, clock } = options;
    this.whole = new ReceiveWindow(Math.max(frames.WINDOW_AT_FIRST, limits.receiveWindowBytes));
    this.stream = new ReceiveWindow(limits.receiveWindowBytes);
    const message = (bytes: Buffer): void => this.call?.message(bytes);
    this.inbox = new Inbox({ message, consumed: (bytes) => this.giveBack(bytes) }, limits.messageBytes);
    this.keepAlive = new KeepAlive({
      clock,
      everyMs: limits.keepAliveMs ?? KEEP_ALIVE_MS,
      ask: () => this.write(frames.pingFrame(PING_PAYLOAD, false)),
      onLost: () => this.lose("The peer does not answer"),
    });
    this.socket = openSocket(address, terms.tls, (bytes, length) => this.read(bytes, length));
    this.outbox = new Outbox(
      (frame) => this.write(frame),
      () => this.socket.writableNeedDrain,
    );
    this.listen(terms.tls === undefined ? "connect" : "secureConnect");
  }

  /** True once nothing is sent or received any more. */
  get isOver(): boolean {
    return this.over;
  }

  /** True while more may be sent without waiting. */
  get hasRoom(): boolean {
    return this.outbox.length === 0 && !this.socket.writableNeedDrain;
  }

  /** Opens the stream, now or when the socket is connected. It may be called once, on a connection that is not over. */
  open(call: Call, request: readonly HeaderField[]): void {
    this.call = call;
    this.request = request;
    if (this.isConnected) this.sendRequest();
  }

  /**
   * Runs an action that throws if the peer has sent something wrong. The stream is over then.
   * @returns false if the action has thrown
   */
  guard(action: () => void): boolean {
    try {
      action();
      return true;
    } catch (thrown) {
      this.fail(thrown);
      return false;
    }
  }

  /**
   * Ends the connection, behind everything that was sent before. Messages that wait in the inbox stay there.
   * @param errorCode ERROR.none for a stream that the peer has ended in order; else the stream is reset with this code
   */
  leave(errorCode: ErrorCode): void {
    if (this.over) return;
    this.finish();
    if (!this.isConnected) {
      this.socket.destroy();
      return;
    }
    const last: Buffer[] = [];
    if (this.call !== undefined && errorCode !== ERROR.none) last.push(frames.resetFrame(errorCode));
    else if (this.call !== undefined && !this.outbox.hasEnded) last.push(frames.endFrame());
    last.push(frames.goAwayFrame(errorCode === ERROR.cancel ? ERROR.none : errorCode));
    this.socket.end(Buffer.concat(last));
    const late = this.options.clock.after(LEAVES_WITHIN_MS, () => this.socket.destroy());
    late.unref();
    this.socket.once("close", () => this.options.clock.cancel(late));
  }

  dataBegins(length: number): void {
    if (!this.hasHeaders) throw new NotUnderstood("data ahead of headers");
    this.whole.take(length);
    this.stream.take(length);
  }

  data(bytes: Buffer, from: number, to: number): void {
    this.inbox.take(bytes, from, to);
  }

  dataEnds(padding: number, endsStream: boolean): void {
    if (padding > 0) this.giveBack(padding);
    if (endsStream) this.call?.ended();
  }

  headers(block: Buffer, endsStream: boolean): void {
    if (this.call === undefined) throw new NotUnderstood("headers for a stream that is not open");
    this.hasHeaders = true;
    this.call.headers(decodeHeaders(block), endsStream);
  }

  reset(errorCode: number): void {
    this.call?.reset(errorCode);
  }

  settings(payload: Buffer): void {
    this.isGreeted = true;
    for (let at = 0; at < payload.length; at += 6) {
      const value = payload.readUInt32BE(at + 2);
      if (payload.readUInt16BE(at) === frames.SETTING.initialWindowSize) this.outbox.setInitialWindow(value);
    }
    this.write(frames.settingsAckFrame());
    this.tellRoom();
  }

  ping(payload: Buffer, isAnswer: boolean): void {
    if (!isAnswer) this.write(frames.pingFrame(payload, true));
  }

  /** A peer that goes away takes no new streams. The stream goes on, unless it is one that the peer has not taken. */
  goAway(lastStream: number, errorCode: number): void {
    if (lastStream < frames.STREAM) this.lose(`The peer goes away with code ${errorCode}, and takes no stream`);
  }

  windowUpdate(stream: number, increment: number): void {
    this.outbox.widen(stream, increment);
    this.tellRoom();
  }

  private listen(connected: "connect" | "secureConnect"): void {
    const { socket } = this;
    socket.once(connected, () => this.greet());
    socket.on("drain", () => {
      this.outbox.pump();
      this.tellRoom();
    });
    socket.on("error", (error) => {
      this.lastError = error;
    });
    // a connection that the peer has closed in its direction is of no use in the other one
    socket.on("end", () => this.lose("The peer has closed the connection"));
    socket.on("close", () => this.lose("Connection dropped"));
  }

  private greet(): void {
    if (this.over) return;
    const { receiveWindowBytes } = this.options.limits;
    this.isConnected = true;
    this.write(
      frames.prefaceFrames([
        [frames.SETTING.headerTableSize, 0],
        [frames.SETTING.enablePush, 0],
        [frames.SETTING.initialWindowSize, receiveWindowBytes],
        [frames.SETTING.maxHeaderList, HEADER_LIST_BYTES_MAX],
      ]),
    );
    const more = receiveWindowBytes - frames.WINDOW_AT_FIRST;
    if (more > 0) this.write(frames.windowUpdateFrame(0, more));
    if (this.call !== undefined) this.sendRequest();
    this.keepAlive.start();
  }

  private sendRequest(): void {
    this.write(frames.headersFrame(encodeHeaders(this.request)));
    this.outbox.open();
    this.tellRoom();
  }

  private read(bytes: Buffer, length: number): void {
    this.keepAlive.note();
    if (this.over) return;
    try {
      this.reader.take(bytes, length);
    } catch (thrown) {
      this.fail(thrown);
    }
  }

  private fail(thrown: unknown): void {
    const fault = MigrationFault.from(thrown);
    this.leave(fault instanceof NotUnderstood ? fault.errorCode : ERROR.cancel);
    this.call?.over(fault);
  }

  private write(frame: Buffer): void {
    if (this.over || !this.isConnected) return;
    this.socket.write(frame);
    if (this.socket.writableLength > UNREAD_BYTES_MAX) this.lose("The peer does not read");
  }

  private giveBack(bytes: number): void {
    const whole = this.whole.give(bytes);
    const stream = this.stream.give(bytes);
    if (whole > 0) this.write(frames.windowUpdateFrame(0, whole));
    if (stream > 0) this.write(frames.windowUpdateFrame(frames.STREAM, stream));
  }

  private tellRoom(): void {
    if (this.hasRoom) this.call?.drained();
  }

  /**
   * Ends a connection that is lost, or was never made.
   * @param how the words for the loss, which count where the socket has no error of its own
   */
  private lose(how: string): void {
    if (this.over) return;
    this.finish();
    this.socket.destroy();
    const { address } = this.options;
    const failed =
      zoneMistake(address) ?? `No connection established. Last error: ${this.wordsOf() ?? "Failed to connect"}`;
    this.call?.over(unavailable(this.isGreeted ? (this.wordsOf() ?? how) : failed));
  }

  /** Returns the text of the socket's error. If several addresses of a host were tried, it is that of the first one. */
  private wordsOf(): string | undefined {
    const { lastError } = this;
    const first: unknown = lastError instanceof AggregateError ? lastError.errors[0] : lastError;
    return first instanceof Error ? first.message : undefined;
  }

  private finish(): void {
    this.over = true;
    this.keepAlive.stop();
    this.reader.stop();
  }
}
