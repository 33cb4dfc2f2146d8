/** Makes the faults of a migration whose guest runs, or ran, at both hosts. */
import { MigrationFault } from "../../shared/fault.ts";
import { GUEST_RUNS_TWICE, type SourceContext } from "./source-context.ts";

/** Makes the fault of a guest that ran at both hosts, and whose copy at the destination has ended. */
export const ranTwice = (cx: SourceContext): MigrationFault =>
  new MigrationFault("two-copies", `${cx.call.guest} ran on this host and at ${cx.call.to}, where its copy has ended`, {
    advice: "Check the guest's disks: two running copies may have ruined them",
  });

/** Makes the fault of a guest that runs at both hosts now. */
export const twoCopies = (cx: SourceContext): MigrationFault =>
  new MigrationFault("two-copies", `${cx.call.guest} runs on this host and at ${cx.call.to}`, {
    guestNow: GUEST_RUNS_TWICE,
    advice:
      `Pause one of the two copies at once (QMP stop), before anything else; then find out which copy to keep, and end the other copy. ` +
      `To keep the copy at the destination: ferry resolve ${cx.id} --keep destination`,
  });
