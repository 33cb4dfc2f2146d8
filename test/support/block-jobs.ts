/** Takes snapshots of a guest's disk and merges them again, as another tool than the agents would. */
import type { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import { eventually } from "./bounded.ts";

const WITHIN = { timeoutMs: 60_000 };

/** Says a command that the agents never say, and that QmpClient does not know. @returns QEMU's answer */
export const tell = (qmp: QmpClient, command: string, given: object = {}): Promise<unknown> =>
  (qmp as unknown as { execute(command: string, given: object): Promise<unknown> }).execute(command, given);

/** Takes a snapshot: from now on the guest writes to `file`, and reads what it has not written from the disk below. */
export const takeSnapshot = (qmp: QmpClient, device: string, file: string): Promise<unknown> =>
  tell(qmp, "blockdev-snapshot-sync", { device, "snapshot-file": file });

/** Begins to write the snapshot into the disk below. @returns when all of it is written; the job then goes on */
export async function beginMerge(qmp: QmpClient, device: string): Promise<void> {
  await tell(qmp, "block-commit", { device, "job-id": "merge" });
  await untilJobs(qmp, "a job that is ready", (jobs) => jobs.includes('"status":"ready"'));
}

/** Ends the job. The guest then has its disk from before the snapshot, with all that it has written. */
export async function endMerge(qmp: QmpClient): Promise<void> {
  await tell(qmp, "job-complete", { id: "merge" });
  await untilJobs(qmp, "the end of the job", (jobs) => jobs === "[]");
}

async function untilJobs(qmp: QmpClient, what: string, isIt: (jobs: string) => boolean): Promise<void> {
  const look = async (): Promise<true | undefined> =>
    isIt(JSON.stringify(await tell(qmp, "query-block-jobs"))) ? true : undefined;
  await eventually(look, { ...WITHIN, what });
}
