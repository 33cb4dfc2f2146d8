/**
 * Limits the connections that an agent takes, in number, in rate and in life (docs/design/security.md#connections). A
 * connection over TLS waits for its turn to shake hands, shakes hands, and is then the connection of a listed caller or
 * of a stranger. A connection in clear waits for its turn to begin. Each of these standings has a room of its own, so
 * that no number of strangers takes a place from a listed caller. A network from which a listed caller has come lately
 * has turns of its own.
 *
 * Not its job: to limit what is done over a connection. call-limits.ts does that, and listen/stranger-door.ts for
 * strangers.
 */
import type { Socket } from "node:net";
import { type Clock, systemClock, type Timer } from "../../runtime/clock.ts";
import type { ConnectionConfig } from "../../runtime/config/config-network.ts";
import type { Logger } from "../../runtime/log/log.ts";
import { CallRates, NamedRates } from "./call-rates.ts";
import { type InRoom, networkOf, Room } from "./connection-room.ts";
import { FamiliarNetworks } from "./familiar-networks.ts";
import { Rate } from "./rate.ts";

/** The limits where none are given. The settings of an agent have the same defaults. */
export const CONNECTION_DEFAULTS: ConnectionConfig = {
  max: 256,
  perAddress: 64,
  handshakesPerSecond: 50,
  maxAgeMs: 3_600_000,
};

/**
 * How long a connection may wait for its turn and shake hands, milliseconds. The time counts from when the port takes
 * the connection. A handshake takes two round trips and some milliseconds of a processor.
 */
const HANDSHAKE_MS = 10_000;
/** How long a stranger's connection lives, milliseconds: enough for a refusal, or for a look at the health. */
const STRANGER_MS = 10_000;
/** The room of connections that wait. A network that has taken all places loses its oldest connection to a newcomer. */
const WAITING = { max: 64, perGroup: 64 };
/** The rooms of connections that shake hands, and of strangers. */
const SHAKING = { max: 32, perGroup: 16 };
const STRANGERS = { max: 64, perGroup: 16 };
/**
 * The most TCP connections that may wait, shake hands or be a stranger's at the same time. The setting `max` does not
 * count them.
 */
export const STRANGERS_MAX = WAITING.max + SHAKING.max + STRANGERS.max;

/**
 * How many handshakes of unknown networks may begin at once, before their rate counts. A handshake takes about a
 * millisecond of the event loop.
 */
const BURST = 16;
/**
 * The rate at which connections in clear begin. All of them share one rate, since in clear nothing tells listed callers
 * from strangers.
 */
const CLEAR_PER_SECOND = 200;
const CLEAR_BURST = 100;
/** How often the agent looks for connections whose time is over, milliseconds. */
const LOOK_MS = 1000;
/**
 * How soon the agent looks again at a connection of a familiar network that waits for a place among the connections
 * that shake hands, milliseconds.
 */
const CROWDED_MS = 50;
/** How long a listed connection whose time is over may go on because a call is under way, milliseconds. */
const GRACE_MS = 60_000;
/** The shortest time between two lines of the log that tell how many connections were ended, milliseconds. */
const TELL_MS = 60_000;

/** What a connection is at the moment. Each standing has a room of its own. */
export type Standing = "waiting" | "shaking" | "stranger" | "listed" | "clear";

/**
 * Why a connection was ended, in the words of the log. `tooMany`: it made room for another one, or its caller went on
 * although it was refused; `tooLong`: its time was over; `noRoom`: there was no place for it.
 */
type Reason = "tooMany" | "tooLong" | "noRoom";

const peerOf = ({ remoteAddress, remotePort }: Socket): string =>
  remoteAddress === undefined ? "" : `${remoteAddress}:${remotePort}`;

/** A connection that is counted, until its socket has closed. */
export interface Counted extends InRoom {
  readonly socket: Socket;
  /** The network of the connection's address, as networkOf() names it. */
  readonly network: string;
  /** The network of the connection and, once it is known to be on a list, the name in the caller's certificate. */
  groups: readonly string[];
  standing: Standing;
  /** When the life of the connection ends, monotonic milliseconds; infinity where it has no end. */
  endsAtMs: number;
  /** How many calls are under way, without those of TransferService. */
  calls: number;
  /** How many transfer streams of migrations the connection carries. No limit ends a connection that carries one. */
  transfers: number;
  /** The rates of its caller. Connections that show the same name share them. */
  rates: CallRates;
}

/** A connection that waits for its turn. When its turn comes, it gets the standing `first`, and `begin` is called. */
interface Turn {
  readonly first: "shaking" | "clear";
  readonly begin: () => void;
}

export class ConnectionLimits {
  private readonly settings: ConnectionConfig;
  private readonly log: Pick<Logger, "warn"> | undefined;
  private readonly clock: Clock;
  private readonly rooms: Readonly<Record<Standing, Room<Counted>>>;
  private readonly unknownRate: Rate;
  private readonly clearRate: Rate;
  private readonly familiar: FamiliarNetworks;
  private readonly named: NamedRates;
  /** The connections by their addresses and ports. */
  private readonly byPeer = new Map<string, Counted>();
  /** The connections that wait for their turn, the longest waiting first. */
  private readonly turns = new Map<Counted, Turn>();
  /** How many connections were ended since the last line of the log, by reason. */
  private readonly ended = new Map<Reason, number>();
  /** How many connections were ended here during their handshakes, where TLS has not reported the failure yet. */
  private endedShaking = 0;
  private toldMs = Number.NEGATIVE_INFINITY;
  private next: Timer | undefined;
  private readonly looks: Timer;

  constructor(
    settings: ConnectionConfig = CONNECTION_DEFAULTS,
    log?: Pick<Logger, "warn">,
    clock: Clock = systemClock,
  ) {
    this.settings = settings;
    this.log = log;
    this.clock = clock;
    this.familiar = new FamiliarNetworks(clock);
    this.named = new NamedRates(clock);
    const known = { max: settings.max, perGroup: settings.perAddress };
    this.rooms = {
      waiting: new Room(WAITING),
      shaking: new Room(SHAKING),
      stranger: new Room(STRANGERS),
      listed: new Room(known),
      clear: new Room(known),
    };
    this.unknownRate = new Rate(settings.handshakesPerSecond, Math.min(BURST, settings.handshakesPerSecond), clock);
    this.clearRate = new Rate(CLEAR_PER_SECOND, CLEAR_BURST, clock);
    this.looks = clock.every(LOOK_MS, () => this.look());
    this.looks.unref();
  }

  /**
   * Takes a connection of a TCP port, and calls `begin` when it is the connection's turn, which may be at once or
   * never.
   * @param first the standing of the connection from its turn on
   */
  receive(socket: Socket, first: "shaking" | "clear", begin: () => void): void {
    // no other code listens yet to the errors of a connection that waits
    socket.on("error", () => socket.destroy());
    const counted = this.count(socket, "waiting");
    if (counted === undefined) return;
    counted.endsAtMs = this.clock.monotonicMs() + HANDSHAKE_MS;
    this.turns.set(counted, { first, begin });
    this.serve();
  }

  /**
   * Takes note that a connection has shaken hands.
   * @param socket the connection, which is found by its address and port
   * @param livesMs how long it may stay, milliseconds; infinity where it may stay for good
   * @param name for a listed caller, the name in its certificate, so that no peer takes the places of all others from
   *   several addresses, and none has more calls by having more connections
   * @returns false when the connection has ended: it was closed, or there was no room for it
   */
  shaken(socket: Socket, standing: "stranger" | "listed", livesMs = STRANGER_MS, name?: string): boolean {
    const counted = this.byPeer.get(peerOf(socket));
    if (counted === undefined) return false;
    const groups = name === undefined ? counted.groups : [counted.network, `name ${name}`];
    if (!this.move(counted, standing, groups)) return false;
    if (name !== undefined) counted.rates = this.named.of(name);
    counted.endsAtMs = this.clock.monotonicMs() + livesMs;
    if (standing === "listed") this.familiar.remember(counted.network);
    return true;
  }

  /** Finds the connection of a call by the address that gRPC shows. @returns undefined for that of a unix socket */
  of(peer: string): Counted | undefined {
    return this.byPeer.get(peer);
  }

  /** Notes that the connection of `peer` carries a transfer of a migration, until the returned function is called. */
  hold(peer: string): () => void {
    const counted = this.byPeer.get(peer);
    if (counted === undefined) return () => {};
    counted.transfers++;
    return () => void counted.transfers--;
  }

  /** The longest life of a connection whose caller is an operator and no peer, milliseconds. */
  get operatorsMs(): number {
    return this.settings.maxAgeMs;
  }

  /**
   * Takes note that a handshake has failed.
   * @returns true if the failure counts as that of a connection which these limits ended, and needs no line in the log
   */
  endedOne(): boolean {
    if (this.endedShaking === 0) return false;
    this.endedShaking--;
    return true;
  }

  /** Ends a connection whose caller goes on although it was refused. */
  end(counted: Counted): void {
    this.leave(counted, "tooMany");
  }

  /** Ends the connections that wait, and lets no other one begin. */
  stop(): void {
    this.clock.cancel(this.looks);
    this.clock.cancel(this.next);
    for (const waiting of this.turns.keys()) waiting.socket.destroy();
    this.turns.clear();
  }

  private count(socket: Socket, standing: Standing): Counted | undefined {
    const peer = peerOf(socket);
    const network = networkOf(socket.remoteAddress);
    const { familiar } = this;
    const counted: Counted = {
      ...{ socket, standing, network, groups: [network] },
      endsAtMs: Number.POSITIVE_INFINITY,
      calls: 0,
      transfers: 0,
      rates: new CallRates(this.clock),
      get isKept() {
        if (this.standing === "shaking") return familiar.rateOf(network) !== undefined;
        return this.standing === "listed" || this.calls > 0 || this.transfers > 0;
      },
    };
    // the connection was closed before it was looked at; or the same port of the caller has a connection to another
    // address of this host already, which the limits could not tell from this one
    if (peer === "" || this.byPeer.has(peer)) {
      socket.destroy();
      return undefined;
    }
    if (!this.makeRoom(counted, standing)) return undefined;
    this.rooms[standing].add(counted);
    this.byPeer.set(peer, counted);
    socket.once("close", () => {
      this.rooms[counted.standing].delete(counted);
      this.turns.delete(counted);
      this.byPeer.delete(peer);
    });
    return counted;
  }

  private move(counted: Counted, standing: Standing, groups = counted.groups): boolean {
    this.rooms[counted.standing].delete(counted);
    counted.groups = groups;
    if (!this.makeRoom(counted, standing)) return false;
    counted.standing = standing;
    this.rooms[standing].add(counted);
    return true;
  }

  /**
   * Ends other connections until `counted` has room.
   * @returns false where that is impossible; `counted` is ended then
   */
  private makeRoom(counted: Counted, standing: Standing): boolean {
    const room = this.rooms[standing];
    while (!room.hasRoomFor(counted.groups)) {
      const leaves = room.toEnd(counted.groups);
      this.leave(leaves ?? counted, leaves === undefined ? "noRoom" : "tooMany");
      if (leaves === undefined) return false;
    }
    return true;
  }

  private leave(counted: Counted, reason: Reason): void {
    this.ended.set(reason, (this.ended.get(reason) ?? 0) + 1);
    this.rooms[counted.standing].delete(counted);
    this.turns.delete(counted);
    if (counted.standing === "shaking") this.endedShaking++;
    counted.socket.destroy();
    this.tell();
  }

  /** Lets the connections begin whose turn it is. */
  private serve(): void {
    let waitsMs = Number.POSITIVE_INFINITY;
    for (const [counted, { first, begin }] of this.turns) {
      const own = this.familiar.rateOf(counted.network);
      // a peer that connects for many migrations at once must not end handshakes of its own, but it may end handshakes
      // of strangers
      if (first === "shaking" && own !== undefined && !this.mayShake(counted)) {
        waitsMs = Math.min(waitsMs, CROWDED_MS);
        continue;
      }
      const rate = first === "clear" ? this.clearRate : (own ?? this.unknownRate);
      if (!rate.take()) {
        waitsMs = Math.min(waitsMs, rate.waitMs());
        continue;
      }
      this.turns.delete(counted);
      if (!this.move(counted, first)) continue;
      if (first === "clear") counted.endsAtMs = Number.POSITIVE_INFINITY;
      begin();
    }
    this.clock.cancel(this.next);
    if (waitsMs === Number.POSITIVE_INFINITY) return;
    this.next = this.clock.after(waitsMs, () => this.serve());
    this.next.unref();
  }

  /** True if there is a place for the handshake of a familiar network, or a stranger's handshake can make one. */
  private mayShake({ groups }: Counted): boolean {
    const { shaking } = this.rooms;
    return shaking.hasRoomFor(groups) || shaking.toEnd(groups) !== undefined;
  }

  /** Ends the connections whose time is over, and logs how many were ended since the last line. */
  private look(): void {
    const nowMs = this.clock.monotonicMs();
    for (const counted of this.byPeer.values()) {
      const lateMs = nowMs - counted.endsAtMs;
      if (lateMs < 0 || counted.transfers > 0) continue;
      if (counted.standing === "listed" && counted.calls > 0 && lateMs < GRACE_MS) continue;
      this.leave(counted, "tooLong");
    }
    this.tell();
  }

  private tell(): void {
    const nowMs = this.clock.monotonicMs();
    if (this.ended.size === 0 || nowMs - this.toldMs < TELL_MS) return;
    this.toldMs = nowMs;
    this.log?.warn(
      { ended: Object.fromEntries(this.ended) },
      "connections were ended by the connection limits (operations.md, Floods)",
    );
    this.ended.clear();
  }
}
