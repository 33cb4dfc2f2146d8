/** Notes in the journal that a guest has arrived. */
import type { DestinationRecord } from "../../shared/protocol/ownership.ts";
import { writeAtLast } from "../../shared/runtime/journal/write-at-last.ts";
import type { DestinationContext } from "./destination-context.ts";

/**
 * Writes a record of kind `arrived`, at once or as soon as the disk takes it. Resolves after the first try, since the
 * guest runs here whatever the journal says.
 */
export const noteArrival = (record: DestinationRecord, cx: DestinationContext): Promise<void> =>
  writeAtLast(cx.journal, cx.id, record, {
    ...cx,
    otherwise: "the journal does not say that the guest has arrived; the next start of this agent would look again",
  });
