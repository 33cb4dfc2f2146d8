/**
 * Watches where a guest runs at every instant, by the events of its QEMUs. Both hosts are this machine, so they have
 * one clock, and two runs that overlap are two guests. The watch asks the guest's second monitor, which nobody else
 * uses and of which the agents do not know.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { MigrationFault } from "../../shared/fault.ts";
import type { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import type { QmpEvent } from "../../shared/qemu/qmp/qmp-types.ts";
import { guestFiles } from "../support/guest.ts";
import type { Rig, RigHost } from "../support/rig.ts";
import type { OutsiderCommand } from "./faults.ts";

/** The pause between two looks for a QEMU that is not there yet, milliseconds. */
const LOOK_MS = 15;
/** How long a QEMU may take to greet, milliseconds. One that is stopped by SIGSTOP does not greet. */
const GREETS_WITHIN_MS = 1000;
const ANSWERS_WITHIN_MS = 1000;
/** How long QEMU may take to carry a command of a test out, milliseconds: long, since the machine may be busy. */
const TAKES_WITHIN_MS = 20_000;
const READS_WITHIN_MS = 300_000;
/** The memory of a guest of these tests, bytes. */
const MEMORY_BYTES = 256 * 2 ** 20;
const STARTS: readonly string[] = ["RESUME"];
const ENDS: readonly string[] = ["STOP", "SHUTDOWN", "GUEST_PANICKED"];

/** A time in which the guest ran on a host, microseconds since the epoch. A run without an end is still under way. */
interface Run {
  readonly host: "a" | "b";
  readonly fromUs: number;
  toUs: number | undefined;
}

export class GuestWatch {
  readonly #rig: Rig;
  readonly #name: string;
  readonly #monitors = new Map<RigHost, QmpClient>();
  readonly #followers: Promise<void>[];
  #runs: Run[] = [];
  readonly #onEvent: (host: RigHost, event: QmpEvent) => void;
  #closed = false;

  /** @param onEvent is told of each event of the guest's QEMUs */
  constructor(rig: Rig, name: string, onEvent: (host: RigHost, event: QmpEvent) => void = () => undefined) {
    this.#rig = rig;
    this.#name = name;
    this.#onEvent = onEvent;
    this.#followers = [rig.a, rig.b].map((host) => this.#follow(host));
  }

  /** The run state of the guest's QEMU on a host; undefined when there is none, or it does not answer. */
  async status(host: RigHost): Promise<string | undefined> {
    const monitor = this.#monitors.get(host);
    const answer = monitor?.execute("query-status", undefined, { timeoutMs: ANSWERS_WITHIN_MS });
    return (await answer?.catch(() => undefined))?.status;
  }

  /**
   * Says a command to the guest's QEMU on a host, as somebody other than the agents. QEMU may refuse it.
   * @throws Error when the host has no such QEMU
   */
  async say(host: RigHost, command: OutsiderCommand): Promise<void> {
    const monitor = this.#monitors.get(host);
    if (monitor === undefined) throw new Error(`There is no QEMU on ${host.name} at this moment`);
    if (command === "pmemsave") {
      // QEMU answers this only when it has every page, which may never be
      const whole = { val: 0, size: MEMORY_BYTES, filename: "/dev/null" };
      void monitor.execute(command, whole, { timeoutMs: READS_WITHIN_MS }).catch(() => undefined);
      return;
    }
    const options = { timeoutMs: TAKES_WITHIN_MS };
    const said =
      command === "system_reset"
        ? monitor.execute("human-monitor-command", { "command-line": command }, options)
        : monitor.execute(command, undefined, options);
    await said.catch((thrown: unknown) => {
      if (MigrationFault.from(thrown).code !== "qmp-command") throw thrown;
    });
  }

  /** The monitor of the guest's QEMU on a host; undefined when there is none, or it has not greeted yet. */
  monitor(host: RigHost): QmpClient | undefined {
    return this.#monitors.get(host);
  }

  /**
   * True when the host has a QEMU that takes commands here. A QEMU that has just been started does not take any yet.
   */
  hears(host: RigHost): boolean {
    return this.#monitors.has(host);
  }

  /** Tells whether the guest's QEMU on a host has written all pages of its post-copy. */
  async hasWrittenAll(host: RigHost): Promise<boolean> {
    const monitor = this.#monitors.get(host);
    const answer = await monitor?.execute("query-migrate", undefined, { timeoutMs: ANSWERS_WITHIN_MS });
    return answer?.status === "postcopy-active" && answer.ram?.remaining === 0;
  }

  /** True when the guest ran on the host after `sinceUs`, microseconds since the epoch. */
  hasRun(host: RigHost, sinceUs: number): boolean {
    return this.#runs.some((run) => run.host === host.name && (run.toUs ?? Number.MAX_VALUE) > sinceUs);
  }

  /** The host whose copy was started first, of the copies that run now. */
  firstToRun(): RigHost | undefined {
    const open = this.#runs.filter(({ toUs }) => toUs === undefined);
    const first = open.sort((one, other) => one.fromUs - other.fromUs)[0];
    return [this.#rig.a, this.#rig.b].find(({ name }) => name === first?.host);
  }

  /** True while two copies run. */
  areTwoNow(): boolean {
    return new Set(this.#runs.filter(({ toUs }) => toUs === undefined).map(({ host }) => host)).size > 1;
  }

  /** Every time in which the guest ran on both hosts, in words. */
  doubled(): readonly string[] {
    const nowUs = Date.now() * 1000;
    return this.#runs.flatMap((one, index) =>
      this.#runs.slice(index + 1).flatMap((other) => {
        if (one.host === other.host) return [];
        const overlapUs = Math.min(one.toUs ?? nowUs, other.toUs ?? nowUs) - Math.max(one.fromUs, other.fromUs);
        return overlapUs > 0 ? [`the guest ran on both hosts for ${(overlapUs / 1e3).toFixed(1)} ms`] : [];
      }),
    );
  }

  /** Forgets the runs that have ended, since their overlaps were looked for. */
  forget(): void {
    this.#runs = this.#runs.filter((run) => run.toUs === undefined);
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const monitor of this.#monitors.values()) monitor.close();
    await Promise.all(this.#followers);
  }

  async #follow(host: RigHost): Promise<void> {
    while (!this.#closed) {
      const path = join(host.guestDirectory(this.#name), guestFiles(this.#name).observer);
      const monitor = existsSync(path) ? await this.#connect(host) : undefined;
      if (monitor === undefined) await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
      else await this.#listen(host, monitor);
    }
  }

  #connect(host: RigHost): Promise<QmpClient | undefined> {
    return this.#rig.observe(host, this.#name, { timeoutMs: GREETS_WITHIN_MS }).catch(() => undefined);
  }

  async #listen(host: RigHost, monitor: QmpClient): Promise<void> {
    if (this.#closed) return monitor.close();
    const unsubscribe = monitor.subscribe((event) => this.#take(host, event));
    this.#monitors.set(host, monitor);
    const { running } = await monitor
      .execute("query-status", undefined, { timeoutMs: ANSWERS_WITHIN_MS })
      .catch(() => ({ running: false }));
    if (running) this.#start(host, Date.now() * 1000);
    await monitor.closed;
    unsubscribe();
    this.#monitors.delete(host);
    this.#stop(host, Date.now() * 1000);
  }

  #take(host: RigHost, given: QmpEvent): void {
    const { event, timestampUs } = given;
    this.#onEvent(host, given);
    if (STARTS.includes(event)) this.#start(host, timestampUs);
    if (ENDS.includes(event)) this.#stop(host, timestampUs);
  }

  #start(host: RigHost, fromUs: number): void {
    if (this.#open(host) === undefined) this.#runs.push({ host: host.name, fromUs, toUs: undefined });
  }

  #stop(host: RigHost, toUs: number): void {
    const run = this.#open(host);
    if (run !== undefined) run.toUs = toUs;
  }

  #open(host: RigHost): Run | undefined {
    return this.#runs.find((run) => run.host === host.name && run.toUs === undefined);
  }
}
