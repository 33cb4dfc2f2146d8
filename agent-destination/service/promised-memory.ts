/**
 * Computes how much memory of this host an accepted guest is still to take. No other guest may be promised that memory
 * (docs/design/security.md#memory).
 */
import { readFile } from "node:fs/promises";
import { memoryBoundOf } from "../../shared/runtime/guest/qemu-options.ts";
import { residentIn } from "../../shared/runtime/host/resident-memory.ts";
import type { DestinationState } from "../migration/destination-state.ts";

/**
 * Subtracts the memory that the guest's QEMU already uses from what the whole guest needs. QEMU's own memory, some 30
 * MiB, counts as memory of its guest.
 * @param neededBytes memory that the whole guest needs here, bytes
 * @returns bytes; 0 for a guest that is whole, and for one that is refused
 */
export async function stillToTake(state: DestinationState, neededBytes: number): Promise<number> {
  switch (state.kind) {
    case "negotiating":
      // until this host's own QEMU was compared with the offer, the offer may claim any memory
      return Math.min(neededBytes, memoryBoundOf(state.definition.command));
    case "staging":
    case "receiving":
    case "loading":
      return without(neededBytes, state.guest.process.pid);
    // a guest in one of these states is whole, but in post-copy its pages are still on their way
    case "loaded":
    case "owning":
    case "starting":
    case "pulling":
      return state.postcopy === undefined ? 0 : without(neededBytes, state.guest.process.pid);
    case "adopting":
      return state.record.postcopy === undefined ? 0 : without(neededBytes, state.record.qemu?.pid);
    default:
      return 0;
  }
}

/**
 * Subtracts the anonymous and shared memory of a process. A process that cannot be seen counts as one that uses none.
 */
async function without(neededBytes: number, pid: number | undefined): Promise<number> {
  const status = pid === undefined ? "" : await readFile(`/proc/${pid}/status`, "latin1").catch(() => "");
  return Math.max(0, neededBytes - (residentIn(status) ?? 0));
}
