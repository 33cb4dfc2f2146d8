/**
 * The ways to the monitor of a guest's QEMU. As a rule there is one, QEMU's own socket. In post-copy a separate
 * program, the keeper, holds that socket (monitor-keeper.ts), and this agent holds a second monitor. QEMU's main loop
 * may wait for a page, and then only a client that was connected before can tell QEMU where pages come from. So neither
 * the end of the keeper nor that of this agent cuts QEMU off.
 */
import { rmSync } from "node:fs";
import { connect } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { MigrationFault } from "../../shared/fault.ts";
import { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import type { QmpEvent } from "../../shared/qemu/qmp/qmp-types.ts";
import type { GuestDefinition } from "../../shared/runtime/guest/guest-definition.ts";
import { KeeperProcess } from "./keeper-process.ts";

const RETRY_MS = 15;
const KEEPS_AGAIN_MS = 500;
/** QEMU greets at once, unless its main loop waits for a page. */
const GREETS_WITHIN_MS = 1000;

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
  /** @throws MigrationFault when it cannot be told */
  readonly hasEnded: () => Promise<boolean>;
}

interface Bound {
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

export class GuestMonitor {
  /** The connection that is in use, or the last one. */
  client: QmpClient | undefined;
  private readonly own: string;
  private readonly places: KeeperPlaces | undefined;
  /** The keeper that waits to be told to begin; once dismissed, it may become another QEMU's. */
  private waiting: KeeperProcess | undefined;
  private kept = false;
  private over = false;
  /** True once QEMU's own socket was left to others. */
  private isFree = false;
  private secondClient: QmpClient | undefined;
  private readonly listeners = new Set<(event: QmpEvent) => void>();

  private constructor(own: string, places: KeeperPlaces | undefined) {
    this.own = own;
    this.places = places;
  }

  /** Makes a monitor that is not connected yet. */
  static of({ qmp }: GuestDefinition, places: KeeperPlaces | undefined): GuestMonitor {
    return new GuestMonitor(qmp, places);
  }

  /** Arguments by which QEMU opens its second monitor. */
  static secondMonitor({ second }: KeeperPlaces): readonly string[] {
    rmSync(second, { force: true });
    return ["-qmp", `unix:${second},server=on,wait=off`];
  }

  /** True when a keeper holds QEMU's own socket. */
  get isKept(): boolean {
    return this.kept;
  }

  get qmp(): QmpClient {
    if (this.client !== undefined) return this.client;
    throw new MigrationFault("qmp-disconnected", `The QEMU at ${this.own} does not answer`);
  }

  /** Connects to a QEMU that is starting. The keeper, where there is to be one, is started beside it. */
  async connectWhenReady(bound: Bound): Promise<void> {
    if (this.places !== undefined) this.waiting = KeeperProcess.take();
    this.use(await connectWhenReady(this.own, bound));
  }

  /**
   * Connects to a QEMU that an earlier life of this agent left. Only a look tells whether a keeper holds its monitor: a
   * keeper begins where post-copy was agreed on, and stays where none was needed.
   */
  async takeOver(bound: Bound, { missesPages, hasEnded }: Left): Promise<void> {
    const { places } = this;
    const { timeoutMs } = bound;
    if (places === undefined) throw new TypeError("whose keeper it may have is not known");
    const kept = await QmpClient.connect(places.path, bound).catch((thrown: unknown) => {
      if (MigrationFault.from(thrown).code !== "qmp-unreachable") throw thrown;
      return undefined;
    });
    this.kept = kept !== undefined || missesPages;
    if (!this.kept) {
      this.use(await QmpClient.connect(this.own, bound));
      return;
    }
    // the keeper ended while no agent was there, or was never told to begin
    const client = kept === undefined ? await this.keepAgain(timeoutMs) : this.use(kept);
    void this.openSecond();
    void this.watchKeeper(client, timeoutMs, hasEnded);
  }

  /** @throws MigrationFault when none of its ways leads to QEMU */
  async open(): Promise<QmpClient> {
    if (this.client?.isOpen) return this.client;
    if (this.places === undefined || !this.kept) return this.use(await QmpClient.connect(this.own));
    try {
      return this.use(await QmpClient.connect(this.places.path));
    } catch (thrown) {
      if (this.secondClient?.isOpen) return this.use(this.secondClient);
      throw thrown;
    }
  }

  /** Lets the keeper begin. When it ends before QEMU does, another keeper takes its place. */
  async keep(bound: Bound, hasEnded: () => Promise<boolean>): Promise<void> {
    const { waiting, places } = this;
    if (waiting === undefined || places === undefined) throw new TypeError("this QEMU was started without a keeper");
    this.waiting = undefined;
    this.kept = true;
    this.client?.close();
    waiting.begin(this.own, places.path);
    const client = this.use(await connectWhenReady(places.path, bound));
    void this.openSecond();
    void this.watchKeeper(client, bound.timeoutMs, hasEnded);
  }

  private async watchKeeper(first: QmpClient, timeoutMs: number, hasEnded: () => Promise<boolean>): Promise<void> {
    for (let client: QmpClient | undefined = first; ; ) {
      await client?.closed;
      while (!this.over && !(await hasEnded().catch(() => false))) {
        client = await this.keepAgain(timeoutMs).catch(() => undefined);
        if (client !== undefined) break;
        // QEMU greets a new keeper when its main loop is free again; until then the second monitor is used
        await delay(KEEPS_AGAIN_MS, undefined, { ref: false });
      }
      if (client === undefined || !client.isOpen) return;
    }
  }

  /** @throws MigrationFault while QEMU does not greet */
  private async keepAgain(timeoutMs: number): Promise<QmpClient> {
    const { places } = this;
    if (places === undefined) throw new TypeError("this QEMU has no keeper");
    // another watcher may have started a keeper already
    const found = await QmpClient.connect(places.path, { timeoutMs: GREETS_WITHIN_MS }).catch(() => undefined);
    if (found !== undefined) return this.use(found);
    const keeper = KeeperProcess.take();
    keeper.begin(this.own, places.path);
    try {
      const client = await connectWhenReady(places.path, { timeoutMs });
      if (!this.isFree) return this.use(client);
      client.close();
      throw new MigrationFault("qmp-disconnected", "The guest is on its own meanwhile");
    } catch (thrown) {
      // once another client lets the monitor go, QEMU would greet this keeper, which would never let it go
      keeper.end();
      rmSync(places.path, { force: true });
      const { code } = MigrationFault.from(thrown);
      throw code === "qmp-unreachable" ? greetsNobody(this.own, thrown) : thrown;
    }
  }

  private async openSecond(): Promise<void> {
    const { places } = this;
    if (places === undefined) return;
    this.secondClient = await QmpClient.connect(places.second).catch(() => undefined);
    if (this.over) this.secondClient?.close();
  }

  private use(client: QmpClient): QmpClient {
    this.client = client;
    client.subscribe((event) => {
      if (client === this.client) for (const listener of [...this.listeners]) listener(event);
    });
    return client;
  }

  /** Calls `listener` with the events of whichever connection is in use. @returns ends that */
  subscribe(listener: (event: QmpEvent) => void): () => void {
    this.listeners.add(listener);
    return () => void this.listeners.delete(listener);
  }

  /** Dismisses the keeper that was started and is not needed: it waits for the next QEMU, or ends. */
  dismissKeeper(): void {
    this.waiting?.dismiss();
    this.waiting = undefined;
    // QEMU keeps the second monitor open, but no agent will use it any more: its path goes, so that nobody else does
    if (!this.kept && this.places !== undefined) rmSync(this.places.second, { force: true });
  }

  close(): void {
    this.over = true;
    this.client?.close();
    this.secondClient?.close();
  }

  /** Closes the monitor: QEMU's own socket is free for others from now on. */
  letGo(): void {
    this.isFree = true;
    this.close();
    const { places, kept } = this;
    if (places === undefined) return;
    // QEMU keeps the second monitor open for as long as QEMU lives: without its path nobody connects to it any more
    rmSync(places.second, { force: true });
    if (!kept) return;
    const keeper = connect(places.path, () => keeper.end(`${JSON.stringify({ keeper: "quit" })}\n`));
    keeper.on("error", () => undefined);
  }

  /** Removes the sockets of a QEMU that has ended. */
  removeFiles(): void {
    rmSync(this.own, { force: true });
    this.removeOwnPlaces();
  }

  /** Removes the sockets that are this migration's alone, where another program listens at the guest's monitor. */
  removeOwnPlaces(): void {
    if (this.places === undefined) return;
    for (const path of [this.places.second, this.places.path]) rmSync(path, { force: true });
  }
}

const greetsNobody = (own: string, cause: unknown): MigrationFault =>
  new MigrationFault(
    "qmp-timeout",
    `QEMU takes no new client at ${own}: either it waits for a page of its guest, or another client holds its monitor`,
    { cause },
  );

async function connectWhenReady(path: string, { timeoutMs, signal }: Bound): Promise<QmpClient> {
  const deadline = performance.now() + timeoutMs;
  while (true) {
    try {
      return await QmpClient.connect(path, { timeoutMs, signal });
    } catch (thrown) {
      const fault = MigrationFault.from(thrown);
      if (fault.code !== "qmp-unreachable" || performance.now() > deadline || signal?.aborted === true) throw fault;
    }
    await delay(RETRY_MS);
  }
}
