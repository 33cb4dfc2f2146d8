/** What a caller says when a guest's QEMU is started, or is adopted from an earlier life of the agent. */
import type { Clock } from "../../shared/runtime/clock.ts";
import type { KeeperPlaces } from "./guest-monitor.ts";

/** What a start needs beside the definition. */
export interface StartOptions {
  /** Id of the migration that the QEMU is for. */
  readonly migration: string;
  readonly runtimeDirectory: string;
  /** How long QEMU may take to start, or to answer, milliseconds. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
  /** @default systemClock */
  readonly clock?: Clock | undefined;
  /**
   * Set where post-copy may follow: the paths at which a keeper may pass on the monitor later (keepMonitor) and at
   * which QEMU opens its second monitor.
   */
  readonly keeper?: KeeperPlaces | undefined;
}

/** What an adoption needs beside the definition and the process. */
export interface AdoptOptions extends Pick<StartOptions, "timeoutMs" | "signal" | "clock"> {
  /** The paths of the sockets of the keeper and of the second monitor, which this QEMU may have. */
  readonly keeper: KeeperPlaces;
  /** True when the guest runs in post-copy, or is about to. */
  readonly missesPages: boolean;
}
