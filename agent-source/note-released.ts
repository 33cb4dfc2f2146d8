import type { MigrationFault } from "../shared/fault.ts";
import { writeAtLast } from "../shared/runtime/write-at-last.ts";
import { type SourceContext, sourceRecord } from "./source-context.ts";

/**
 * Writes `released`, at once or as soon as the disk has room: nothing of the guest is this host's any more.
 * @param fault why the migration failed all the same
 */
export const noteReleased = (cx: SourceContext, fault?: MigrationFault): Promise<void> => {
  const reason = fault === undefined ? {} : { reason: { code: fault.code, message: fault.message } };
  return writeAtLast(
    cx.journal,
    cx.id,
    { ...sourceRecord(cx, "released"), ...reason },
    {
      ...cx,
      otherwise: "the journal still says granted; the next start of this agent would ask the destination again",
    },
  );
};
