/**
 * Writes the end of a migration after which this host has no part in the guest: the guest was moved, or has lost pages
 * in post-copy and its QEMU here has ended.
 */
import type { MigrationFault } from "../../shared/fault.ts";
import { writeAtLast } from "../../shared/runtime/journal/write-at-last.ts";
import type { Kept } from "../guest/kept.ts";
import { type SourceContext, sourceRecord } from "./source-context.ts";

/**
 * Writes the record `released`: this host has no part in the guest any more. If the disk is full, the record is written
 * as soon as the disk has room.
 * @param kept tells the next life of this agent whether the QEMU that it may have to end was left in post-copy
 * @param fault why the migration failed, where it failed although this host has released the guest
 */
export const noteReleased = (cx: SourceContext, kept: Kept, fault?: MigrationFault): Promise<void> => {
  const reason = fault === undefined ? {} : { reason: { code: fault.code, message: fault.message } };
  return writeAtLast(
    cx.journal,
    cx.id,
    { ...sourceRecord(cx, "released", kept), ...reason },
    {
      ...cx,
      otherwise: "the journal still says granted; the next start of this agent would ask the destination again",
    },
  );
};
