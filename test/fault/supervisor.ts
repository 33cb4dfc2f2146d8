/**
 * Plays what starts a guest on a host again whenever its QEMU has ended, such as a unit of systemd or an autostart at
 * boot. It asks `ferry may-start` before it starts the guest, or does not.
 */
import { join } from "node:path";
import { ferryCommand } from "../support/agents.ts";
import { bounded, eventually } from "../support/bounded.ts";
import type { RigHost } from "../support/rig.ts";
import type { FaultRig } from "./fault-rig.ts";

const LOOKS_EVERY_MS = 100;
/** The pause between two questions while no agent has settled the migration, milliseconds. */
const ASKS_EVERY_MS = 1000;
const DECIDES_WITHIN_MS = 60_000;
const ANSWERS_WITHIN_MS = 20_000;
const STARTS_WITHIN_MS = 20_000;

export class Supervisor {
  /** How many guests the supervisor has started. */
  restarts = 0;
  readonly #on: FaultRig;
  readonly #host: RigHost;
  readonly #asks: boolean;
  readonly #over = new AbortController();
  readonly #looking: Promise<void>;
  #hadGuest = false;
  #isStarting = false;
  /**
   * True once the supervisor was told that it may not start the guest, and that no agent will change that by itself.
   */
  #mayNot = false;

  constructor(on: FaultRig, host: RigHost, how: "asks" | "blind") {
    this.#on = on;
    this.#host = host;
    this.#asks = how === "asks";
    this.#looking = this.#look();
  }

  /**
   * Resolves when the supervisor has started the guest that has ended, or was told for good that it may not, or when no
   * guest has ended.
   */
  async decided(): Promise<void> {
    const isDecided = (): true | undefined => (this.#isPending() ? undefined : true);
    await eventually(isDecided, {
      timeoutMs: DECIDES_WITHIN_MS,
      what: `the supervisor of ${this.#host.name} to decide`,
    });
  }

  #isPending(): boolean {
    const isGone = this.#on.qemusOn(this.#host).length === 0 && !this.#on.isDown(this.#host);
    return this.#isStarting || (this.#hadGuest && isGone && !this.#mayNot);
  }

  /** Ends the supervisor. Resolves when it starts nothing any more. */
  async close(): Promise<void> {
    this.#over.abort();
    await this.#looking;
  }

  async #look(): Promise<void> {
    while (!this.#over.signal.aborted) {
      const hasQemu = this.#on.qemusOn(this.#host).length > 0;
      if (hasQemu) this.#mayNot = false;
      // a QEMU that waits for a migration does not count as a guest of this supervisor
      this.#hadGuest ||= hasQemu && (await this.#on.watch.status(this.#host)) === "running";
      const isPending = this.#isPending();
      if (isPending && (await this.#mayStart())) await this.#start();
      await new Promise((resolve) => setTimeout(resolve, isPending && this.#asks ? ASKS_EVERY_MS : LOOKS_EVERY_MS));
    }
  }

  /**
   * Starts the guest from the rig's snapshot, which takes a moment to load: until then its QEMU has no guest that could
   * be seen.
   */
  async #start(): Promise<void> {
    if (this.#over.signal.aborted) return;
    this.#isStarting = true;
    this.restarts += 1;
    const on = this.#on;
    await bounded(on.startAnew(this.#host), STARTS_WITHIN_MS, `the supervisor's start on ${this.#host.name}`);
    const runs = async (): Promise<true | undefined> => (await on.watch.status(this.#host)) === "running" || undefined;
    await eventually(runs, { timeoutMs: STARTS_WITHIN_MS, what: "the guest that the supervisor has started" });
    this.#isStarting = false;
  }

  async #mayStart(): Promise<boolean> {
    if (!this.#asks) return true;
    const { rig, name } = this.#on;
    const journals = ["source", "destination"].map(
      (kind) => `--${kind}-state=${join(this.#host.stateDirectory, kind)}`,
    );
    const command = ferryCommand(this.#on.agents(this.#host), ["--json", "may-start", name, ...journals]);
    const asking = await rig.spawn(this.#host, "ferry may-start", command.slice(this.#host.prefix.length));
    this.#on.casts(asking);
    const { code } = await bounded(asking.ended, ANSWERS_WITHIN_MS, "ferry may-start");
    this.#mayNot = code !== 0 && !/"passing":true/.test(asking.output());
    return code === 0;
  }
}

/**
 * The hosts that have a supervisor. A guest that comes is in no unit of its new host, so a blind supervisor is only at
 * the source; one that asks does no harm at either host.
 */
export const supervised = ({ rig, at }: FaultRig, how: "asks" | "blind"): readonly RigHost[] =>
  how === "asks" ? [rig.a, rig.b] : [at];
