/** Snapshots of a guest's disk, taken and taken back by another tool than the agents. */
import type { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import { eventually } from "./bounded.ts";

const WITHIN = { timeoutMs: 60_000 };

/** A command that the agents never say. @returns QEMU's answer */
export const tell = (qmp: QmpClient, command: string, given: object = {}): Promise<unknown> =>
  (qmp as unknown as { execute(command: string, given: object): Promise<unknown> }).execute(command, given);

/** From now on the guest writes to that file, and reads what it has not written from the disk below. */
export const takeSnapshot = (qmp: QmpClient, device: string, file: string): Promise<unknown> =>
  tell(qmp, "blockdev-snapshot-sync", { device, "snapshot-file": file });

/** Begins to write the snapshot into the disk below. @returns when the job has all of it, and lasts */
export async function beginMerge(qmp: QmpClient, device: string): Promise<void> {
  await tell(qmp, "block-commit", { device, "job-id": "merge" });
  await untilJobs(qmp, "a job that is ready", (jobs) => jobs.includes('"status":"ready"'));
}

/** Ends the job: the guest has its disk of before, with all that it wrote. */
export async function endMerge(qmp: QmpClient): Promise<void> {
  await tell(qmp, "job-complete", { id: "merge" });
  await untilJobs(qmp, "the end of the job", (jobs) => jobs === "[]");
}

async function untilJobs(qmp: QmpClient, what: string, isIt: (jobs: string) => boolean): Promise<void> {
  const look = async (): Promise<true | undefined> =>
    isIt(JSON.stringify(await tell(qmp, "query-block-jobs"))) ? true : undefined;
  await eventually(look, { ...WITHIN, what });
}
