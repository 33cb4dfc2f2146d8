/**
 * Where a guest runs at every instant, by its QEMUs' own events. Both hosts are this machine, so their clocks are one,
 * and two runs that overlap are two guests. A monitor that nobody else uses is asked: the agents do not know of it.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { MigrationFault } from "../../shared/fault.ts";
import type { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import type { QmpEvent } from "../../shared/qemu/qmp/qmp-types.ts";
import { guestFiles } from "../support/guest.ts";
import type { Rig, RigHost } from "../support/rig.ts";
import type { OutsiderCommand } from "./faults.ts";

/** Between two looks for a QEMU that is not there yet. */
const LOOK_MS = 15;
/** A QEMU that is stopped by SIGSTOP does not greet. */
const GREETS_WITHIN_MS = 1000;
const ANSWERS_WITHIN_MS = 1000;
/** Long, so that a command of a test is carried out however busy the machine is. */
const TAKES_WITHIN_MS = 20_000;
const READS_WITHIN_MS = 300_000;
/** All that a guest of these tests has. */
const MEMORY_BYTES = 256 * 2 ** 20;
const STARTS: readonly string[] = ["RESUME"];
const ENDS: readonly string[] = ["STOP", "SHUTDOWN", "GUEST_PANICKED"];

/** Microseconds since the epoch; without an end it still runs. */
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

  /** What the guest's QEMU on a host says that it does; undefined when there is none, or it does not answer. */
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

  /** Is there a QEMU on the host that takes commands of others? One that has just been started does not yet. */
  hears(host: RigHost): boolean {
    return this.#monitors.has(host);
  }

  /** Has the guest's QEMU on a host written all pages of its migration? */
  async hasWrittenAll(host: RigHost): Promise<boolean> {
    const monitor = this.#monitors.get(host);
    const answer = await monitor?.execute("query-migrate", undefined, { timeoutMs: ANSWERS_WITHIN_MS });
    return answer?.status === "postcopy-active" && answer.ram?.remaining === 0;
  }

  /** Did the guest run on the host since `sinceUs`? */
  hasRun(host: RigHost, sinceUs: number): boolean {
    return this.#runs.some((run) => run.host === host.name && (run.toUs ?? Number.MAX_VALUE) > sinceUs);
  }

  /** Of two copies that run now, the one that was started first. */
  firstToRun(): RigHost | undefined {
    const open = this.#runs.filter(({ toUs }) => toUs === undefined);
    const first = open.sort((one, other) => one.fromUs - other.fromUs)[0];
    return [this.#rig.a, this.#rig.b].find(({ name }) => name === first?.host);
  }

  areTwoNow(): boolean {
    return new Set(this.#runs.filter(({ toUs }) => toUs === undefined).map(({ host }) => host)).size > 1;
  }

  /** Every moment at which two guests ran, in words. */
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

  /** Forgets runs that have ended: their overlaps were looked for. */
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
