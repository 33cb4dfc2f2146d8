/** What a guest that was accepted will still take of this host's memory, which nobody else may be promised. */
import { readFile } from "node:fs/promises";
import { residentIn } from "../../shared/runtime/host/resident-memory.ts";
import type { DestinationState } from "../migration/destination-state.ts";

/**
 * @param neededBytes of the guest when it is here as a whole
 * @returns bytes; 0 of a guest that is whole. A QEMU's own memory counts as its guest's, some 30 MiB
 */
export async function stillToTake(state: DestinationState, neededBytes: number): Promise<number> {
  switch (state.kind) {
    case "negotiating":
      return neededBytes;
    case "staging":
    case "receiving":
    case "loading":
      return without(neededBytes, state.guest.process.pid);
    // in post-copy its pages are on their way
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

async function without(neededBytes: number, pid: number | undefined): Promise<number> {
  const status = pid === undefined ? "" : await readFile(`/proc/${pid}/status`, "latin1").catch(() => "");
  return Math.max(0, neededBytes - (residentIn(status) ?? 0));
}
