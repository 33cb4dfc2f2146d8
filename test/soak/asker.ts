/** A second QMP client that asks QEMU all the time, as monitoring and management do, and that notes block errors. */
import type { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import type { QmpEvent } from "../../shared/qemu/qmp/qmp-types.ts";
import type { RigHost } from "../support/rig.ts";

const BETWEEN_MS = 20;
const ANSWERS_WITHIN_MS = 2000;
const BLOCK_ERRORS: readonly string[] = ["BLOCK_IO_ERROR", "BLOCK_JOB_ERROR", "BLOCK_IMAGE_CORRUPTED"];

/**
 * A part of BlockInfo (qapi/block-core.json). QEMU gives `io-status` where it may stop the guest because of an error.
 */
interface WithStatus {
  readonly device: string;
  readonly "io-status"?: "ok" | "failed" | "nospace";
}

export class Asker {
  /** How many questions were answered by a QEMU. */
  answers = 0;
  readonly #errors: string[] = [];
  readonly #monitorOf: (host: RigHost) => QmpClient | undefined;
  readonly #loops: readonly Promise<void>[];
  #isOver = false;

  constructor(hosts: readonly RigHost[], monitorOf: (host: RigHost) => QmpClient | undefined) {
    this.#monitorOf = monitorOf;
    this.#loops = hosts.map((host) => this.#ask(host));
  }

  /** Takes each event of the guest's QEMUs, and keeps the errors of disks. */
  hear({ name }: RigHost, { event, data }: QmpEvent): void {
    if (BLOCK_ERRORS.includes(event)) this.#errors.push(`QEMU on ${name} says ${event} ${JSON.stringify(data)}`);
  }

  /** @returns the block errors since the last call, in words */
  takeErrors(): readonly string[] {
    return this.#errors.splice(0);
  }

  async close(): Promise<void> {
    this.#isOver = true;
    await Promise.all(this.#loops);
  }

  async #ask(host: RigHost): Promise<void> {
    while (!this.#isOver) {
      const qmp = this.#monitorOf(host);
      if (qmp !== undefined) await this.#askAll(host, qmp);
      await new Promise((resolve) => setTimeout(resolve, BETWEEN_MS));
    }
  }

  async #askAll(host: RigHost, qmp: QmpClient): Promise<void> {
    const within = { timeoutMs: ANSWERS_WITHIN_MS };
    const asked = await Promise.allSettled([
      qmp.execute("query-block", undefined, within),
      qmp.execute("query-status", undefined, within),
      qmp.execute("query-migrate", undefined, within),
    ]);
    // a QEMU that ends, or waits for a page of post-copy, answers later or not at all
    this.answers += asked.filter(({ status }) => status === "fulfilled").length;
    const [block] = asked;
    if (block.status !== "fulfilled") return;
    for (const { device, "io-status": status } of block.value as readonly WithStatus[])
      if (status !== undefined && status !== "ok")
        this.#errors.push(`QEMU on ${host.name} says that the last request to ${device} ended as ${status}`);
  }
}
