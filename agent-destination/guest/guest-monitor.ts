/**
 * The ways to the monitor of a guest's QEMU. As a rule there is one, QEMU's own socket. In post-copy a separate
 * program, the keeper, holds that socket (monitor-keeper.ts), and this agent holds a second monitor. QEMU's main loop
 * may wait for a page, and then only a client that was connected before can tell QEMU where pages come from. So neither
 * the end of the keeper nor that of this agent cuts QEMU off.
 */
import { connect } from "node:net";
import { MigrationFault } from "../../shared/fault.ts";
import { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import type { QmpEvent } from "../../shared/qemu/qmp/qmp-types.ts";
import { type Clock, sleepUnref, systemClock } from "../../shared/runtime/clock.ts";
import { removeLeftNow } from "../../shared/runtime/files/remove-left.ts";
import type { GuestDefinition } from "../../shared/runtime/guest/guest-definition.ts";
import { KeeperProcess } from "./keeper-process.ts";

/** The pause between two tries to connect to a QEMU or a keeper that is starting, milliseconds. */
const RETRY_MS = 15;
/** The pause between two tries to put another keeper in the place of one that has ended, milliseconds. */
const KEEPS_AGAIN_MS = 500;
/**
 * How long a keeper that is there already may take to greet, milliseconds. A keeper greets at once, since it listens
 * only after QEMU has greeted it.
 */
const GREETS_WITHIN_MS = 1000;

/** The sockets of a QEMU that may go into post-copy, beside QEMU's own one. */
export interface KeeperPlaces {
  /** The socket at which the keeper passes the monitor on. */
  readonly path: string;
  /** The socket of QEMU's second monitor. */
  readonly second: string;
}

/** What is known of a QEMU that an earlier life of this agent left. */
interface Left {
  /** True when its guest may wait for a page: QEMU then greets no new client, and only its keeper can be reached. */
  readonly missesPages: boolean;
  /**
   * Tells whether that QEMU has ended.
   * @throws MigrationFault when this host cannot tell
   */
  readonly hasEnded: () => Promise<boolean>;
}

/** What bounds a wait for a connection. */
interface Bound {
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

/** The connections to the monitor of one QEMU. */
export class GuestMonitor {
  /** The connection that is in use, or the last one. */
  client: QmpClient | undefined;
  /** The path of QEMU's own socket. */
  private readonly own: string;
  private readonly places: KeeperPlaces | undefined;
  private readonly clock: Clock;
  /**
   * The keeper process that was taken for this QEMU and was not told yet to connect to its monitor. Undefined once it
   * was told so, and once it was dismissed. A dismissed keeper may be given to another QEMU.
   */
  private waiting: KeeperProcess | undefined;
  /** True once a keeper holds QEMU's own socket, or is to hold it. */
  private kept = false;
  /** True once this agent uses the monitor no more. */
  private over = false;
  /** True once QEMU's own socket was left to others. */
  private isFree = false;
  /** The connection to QEMU's second monitor, where it could be had. */
  private secondClient: QmpClient | undefined;
  private readonly listeners = new Set<(event: QmpEvent) => void>();
  private readonly renewals = new Set<(client: QmpClient) => void>();
  /**
   * The connection to a keeper that is being made; undefined while none is. A keeper serves only its newest client, so
   * two attempts at a time would cut each other off, and the attempt that fails would end the keeper that the other
   * attempt uses.
   */
  private reaching: Promise<QmpClient> | undefined;

  private constructor(own: string, places: KeeperPlaces | undefined, clock: Clock) {
    this.own = own;
    this.places = places;
    this.clock = clock;
  }

  /**
   * Makes the monitor of a QEMU, without a connection yet.
   * @param places the sockets of the keeper and of the second monitor; undefined for a QEMU that no keeper serves
   */
  static of({ qmp }: GuestDefinition, places: KeeperPlaces | undefined, clock: Clock = systemClock): GuestMonitor {
    return new GuestMonitor(qmp, places, clock);
  }

  /** Gives the arguments by which QEMU opens its second monitor. A socket that is left at its path is removed. */
  static secondMonitor({ second }: KeeperPlaces): readonly string[] {
    removeLeftNow(second);
    return ["-qmp", `unix:${second},server=on,wait=off`];
  }

  /** True when a keeper holds QEMU's own socket. */
  get isKept(): boolean {
    return this.kept;
  }

  /**
   * The connection that is in use, or the last one.
   * @throws MigrationFault `qmp-disconnected` where there never was one
   */
  get qmp(): QmpClient {
    if (this.client !== undefined) return this.client;
    throw new MigrationFault("qmp-disconnected", `The QEMU at ${this.own} does not answer`);
  }

  /** Connects to a QEMU that is starting. The keeper, where there is to be one, is started beside it. */
  async connectWhenReady(bound: Bound): Promise<void> {
    if (this.places !== undefined) this.waiting = KeeperProcess.take();
    this.use(await connectWhenReady(this.own, bound, this.clock));
  }

  /**
   * Connects to a QEMU that an earlier life of this agent left. Whether a keeper holds the monitor shows only when this
   * agent connects: a keeper begins where post-copy was agreed on, and stays even where post-copy was not needed.
   */
  async takeOver(bound: Bound, { missesPages, hasEnded }: Left): Promise<void> {
    const { places } = this;
    const { timeoutMs } = bound;
    if (places === undefined) throw new TypeError("the paths of the keeper's sockets are not known");
    const kept = await QmpClient.connect(places.path, bound, this.clock).catch((thrown: unknown) => {
      if (MigrationFault.from(thrown).code !== "qmp-unreachable") throw thrown;
      return undefined;
    });
    this.kept = kept !== undefined || missesPages;
    if (!this.kept) {
      this.use(await QmpClient.connect(this.own, bound, this.clock));
      return;
    }
    // no keeper answers: it ended while no agent was there, or was never told to begin
    const client = kept === undefined ? await this.reach(() => this.keepAgain(timeoutMs)) : this.use(kept);
    void this.openSecond();
    void this.watchKeeper(client, timeoutMs, hasEnded);
  }

  /**
   * Gives an open connection, and makes a new one where the last one was lost.
   * @throws MigrationFault when no way leads to QEMU
   */
  async open(): Promise<QmpClient> {
    if (this.client?.isOpen) return this.client;
    const { places } = this;
    if (places === undefined || !this.kept) return this.use(await QmpClient.connect(this.own, {}, this.clock));
    // QEMU may greet a keeper that is starting only much later
    if (this.reaching !== undefined && this.secondClient?.isOpen) return this.use(this.secondClient);
    try {
      return await this.reach(() => QmpClient.connect(places.path, {}, this.clock));
    } catch (thrown) {
      if (this.secondClient?.isOpen) return this.use(this.secondClient);
      throw thrown;
    }
  }

  /**
   * Uses the connection to a keeper that `connect` makes. If another attempt is under way already, its connection is
   * used instead, and `connect` is not called.
   */
  private reach(connect: () => Promise<QmpClient>): Promise<QmpClient> {
    this.reaching ??= connect()
      .then((client) => this.use(client))
      .finally(() => {
        this.reaching = undefined;
      });
    return this.reaching;
  }

  /** Lets the keeper begin. When the keeper ends before QEMU does, another keeper takes its place. */
  async keep(bound: Bound, hasEnded: () => Promise<boolean>): Promise<void> {
    const { waiting, places } = this;
    if (waiting === undefined || places === undefined) throw new TypeError("this QEMU was started without a keeper");
    this.waiting = undefined;
    this.kept = true;
    this.client?.close();
    waiting.begin(this.own, places.path);
    const client = await this.reach(() => connectWhenReady(places.path, bound, this.clock));
    void this.openSecond();
    void this.watchKeeper(client, bound.timeoutMs, hasEnded);
  }

  /** Starts another keeper whenever one has ended, until QEMU has ended or this agent uses the monitor no more. */
  private async watchKeeper(first: QmpClient, timeoutMs: number, hasEnded: () => Promise<boolean>): Promise<void> {
    for (let client: QmpClient | undefined = first; ; ) {
      await client?.closed;
      while (!this.over && !(await hasEnded().catch(() => false))) {
        client = await this.reach(() => this.keepAgain(timeoutMs)).catch(() => undefined);
        if (client !== undefined) break;
        // QEMU greets a new keeper when its main loop is free again; until then the second monitor is used
        await sleepUnref(this.clock, KEEPS_AGAIN_MS);
      }
      if (client === undefined || !client.isOpen) return;
    }
  }

  /**
   * Connects to another keeper, which is started where there is none yet.
   * @throws MigrationFault while QEMU does not greet
   */
  private async keepAgain(timeoutMs: number): Promise<QmpClient> {
    const { places } = this;
    if (places === undefined) throw new TypeError("this QEMU has no keeper");
    // another watcher may have started a keeper already
    const found = await QmpClient.connect(places.path, { timeoutMs: GREETS_WITHIN_MS }, this.clock).catch(
      () => undefined,
    );
    if (found !== undefined) return found;
    const keeper = KeeperProcess.take();
    keeper.begin(this.own, places.path);
    try {
      const client = await connectWhenReady(places.path, { timeoutMs }, this.clock);
      if (!this.isFree) return client;
      client.close();
      throw new MigrationFault("qmp-disconnected", "This agent has left the guest's monitor to others meanwhile");
    } catch (thrown) {
      // once another client lets go of the monitor, QEMU would greet this keeper, which would never let go of it
      keeper.end();
      removeLeftNow(places.path);
      const { code } = MigrationFault.from(thrown);
      throw code === "qmp-unreachable" ? greetsNobody(this.own, thrown) : thrown;
    }
  }

  /** Connects to QEMU's second monitor, for the case that the keeper is lost. */
  private async openSecond(): Promise<void> {
    const { places } = this;
    if (places === undefined) return;
    const second = await QmpClient.connect(places.second, {}, this.clock).catch(() => undefined);
    if (second === undefined) return;
    this.secondClient = second;
    this.hear(second);
    if (this.over) second.close();
  }

  /** Uses this connection from now on, and passes its events on. */
  private use(client: QmpClient): QmpClient {
    const before = this.client;
    this.client = client;
    // openSecond() has already arranged that the events of the second monitor are passed on
    if (client !== this.secondClient) this.hear(client);
    if (before !== undefined && before !== client) for (const renewed of [...this.renewals]) renewed(client);
    return client;
  }

  /** Passes the events of a connection on. */
  private hear(client: QmpClient): void {
    client.subscribe((event) => {
      for (const listener of [...this.listeners]) listener(event);
    });
  }

  /**
   * Calls `listener` with the events of every open connection: QEMU sends each event to both of its monitors, so it may
   * come twice. Calls `renewed` with each connection that takes the place of another one: the events that QEMU sent
   * while there was no connection are lost, so the listener has to ask for the state.
   * @returns a function that ends the calls
   */
  subscribe(listener: (event: QmpEvent) => void, renewed: (client: QmpClient) => void): () => void {
    this.listeners.add(listener);
    this.renewals.add(renewed);
    return () => {
      this.listeners.delete(listener);
      this.renewals.delete(renewed);
    };
  }

  /** Dismisses the keeper that was started and is not needed: it waits for the next QEMU, or ends. */
  dismissKeeper(): void {
    this.waiting?.dismiss();
    this.waiting = undefined;
    // QEMU keeps the second monitor open, but no agent will use it any more. Without its path no other program can use
    // it
    if (!this.kept && this.places !== undefined) removeLeftNow(this.places.second);
  }

  /** Closes this agent's connections. A keeper stays. */
  close(): void {
    this.over = true;
    this.client?.close();
    this.secondClient?.close();
  }

  /** Closes this agent's connections and ends the keeper: QEMU's own socket is free for others from now on. */
  letGo(): void {
    this.isFree = true;
    this.close();
    const { places, kept } = this;
    if (places === undefined) return;
    // QEMU keeps the second monitor open for as long as QEMU lives. Without its path no program connects to it any more
    removeLeftNow(places.second);
    if (!kept) return;
    const keeper = connect(places.path, () => keeper.end(`${JSON.stringify({ keeper: "quit" })}\n`));
    keeper.on("error", () => undefined);
  }

  /** Removes the sockets of a QEMU that has ended. */
  removeFiles(): void {
    removeLeftNow(this.own);
    this.removeOwnPlaces();
  }

  /**
   * Removes only the sockets that belong to this migration alone, for the case that another program listens at the
   * guest's monitor.
   */
  removeOwnPlaces(): void {
    if (this.places === undefined) return;
    for (const path of [this.places.second, this.places.path]) removeLeftNow(path);
  }
}

/** Makes the fault of a QEMU that does not greet a keeper. */
const greetsNobody = (own: string, cause: unknown): MigrationFault =>
  new MigrationFault(
    "qmp-timeout",
    `QEMU takes no new client at ${own}: either it waits for a page of its guest, or another client holds its monitor`,
    { cause },
  );

/**
 * Connects as soon as something listens at the path.
 * @throws MigrationFault of the last try when that takes too long
 */
async function connectWhenReady(path: string, { timeoutMs, signal }: Bound, clock: Clock): Promise<QmpClient> {
  const deadline = clock.monotonicMs() + timeoutMs;
  while (true) {
    try {
      return await QmpClient.connect(path, { timeoutMs, signal }, clock);
    } catch (thrown) {
      const fault = MigrationFault.from(thrown);
      if (fault.code !== "qmp-unreachable" || clock.monotonicMs() > deadline || signal?.aborted === true) throw fault;
    }
    await clock.sleep(RETRY_MS);
  }
}
