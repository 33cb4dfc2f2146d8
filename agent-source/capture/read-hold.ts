/**
 * Decides when QEMU's stream is left unread, and when it is read on. While the agent does not read, QEMU's migration
 * thread blocks in its socket, so the next sync of its dirty bitmap waits; the guest runs on. The stream is left unread
 * for one of three reasons:
 *
 * - `room`: the arena is full;
 * - `backlog`: the pages that wait keep the link busy, so a sync would come too early (backlog-gate.ts);
 * - `pace`: the last sync was just now (sync-pace.ts).
 *
 * Not its job: the socket itself (intake.ts).
 */
import type { Clock, Timer } from "../../shared/runtime/clock.ts";
import { BacklogGate, type LinkWork } from "./backlog-gate.ts";
import type { SyncPace } from "./sync-pace.ts";

export interface ReadHoldOptions {
  readonly pace: SyncPace;
  readonly work: LinkWork & {
    /** True once every page that QEMU sends was captured at least once. */
    readonly firstPassDone: boolean;
  };
  /** True while the guest stands still: QEMU has nothing to sync, and completes as soon as it has sent everything. */
  readonly standsStill: () => boolean;
  readonly clock: Clock;
  /** Called when the stream is to be read on. */
  readonly onResume: () => void;
}

/**
 * - `paced`: in the first pass the stream is left unread for room and for the backlog, and later for any of the three
 *   reasons.
 * - `closing`: QEMU sweeps over its bitmap just before the last pages. The stream is left unread for room only.
 * - `final`: the last pages come. The stream is left unread for room only.
 */
export type CapturePhase = "paced" | "closing" | "final";

export class ReadHold {
  phase: CapturePhase = "paced";
  private readonly parts: ReadHoldOptions;
  private readonly gate: BacklogGate;
  /** Why the stream is left unread now. */
  private reason: "nothing" | "room" | "backlog" | "pace" = "nothing";
  private timer: Timer | undefined;

  constructor(parts: ReadHoldOptions) {
    this.parts = parts;
    this.gate = new BacklogGate(parts.work);
  }

  /** @param near true if the switchover is near: the pages that wait are then sent before the next sync */
  drains(near: boolean): void {
    this.gate.drains = near;
  }

  /**
   * Decides before each piece of the first pass whether it is left unparsed and reading stops. A page that is captured
   * long before the link takes it may be dirtied again, and is then sent twice. A piece is what one read of the socket
   * has brought, so that this function is called once a read and not once a page.
   * @returns true if reading must stop; onResume() is called when it may go on
   */
  beforeRead(): boolean {
    return !this.parts.work.firstPassDone && this.waitsForLink();
  }

  /**
   * Decides at the end of a section whether the next section is left unread.
   * @param pages how many pages the ended section had
   * @param drained true if that section left no page dirty that QEMU knew of: a sync follows
   * @param near true if the switchover is near
   * @returns true if reading must stop; onResume() is called when it may go on
   */
  afterSection(pages: number, drained: boolean, near: boolean): boolean {
    if (this.phase !== "paced" || !this.parts.work.firstPassDone || this.parts.standsStill()) return false;
    if (drained && this.waitsForLink()) return true;
    const waitMs = this.parts.pace.holdMs(pages, drained, this.parts.clock.monotonicMs(), near);
    if (waitMs <= 0) return false;
    this.parts.clock.cancel(this.timer);
    this.timer = this.parts.clock.after(waitMs, () => this.resume());
    this.reason = "pace";
    return true;
  }

  /** Notes that reading has stopped because the arena takes no more pages. */
  forRoom(): void {
    this.reason = "room";
  }

  /**
   * Reads on if a full arena was the reason, and looks at the backlog otherwise. Called when pages have left the arena.
   */
  roomMade(): void {
    if (this.reason === "room") this.resume();
    else this.lookAgain();
  }

  /**
   * Reads on if the backlog was the reason and is small now. Called when pages were sent, and at each tick of
   * PrecopyCapture.
   */
  lookAgain(): void {
    if (this.reason !== "backlog" || !this.gate.opens) return;
    this.parts.pace.begins(this.parts.clock.monotonicMs());
    this.resume();
  }

  /** Reads on, whatever the reason was. */
  resume(): void {
    this.parts.clock.cancel(this.timer);
    this.reason = "nothing";
    this.parts.onResume();
  }

  stop(): void {
    this.parts.clock.cancel(this.timer);
  }

  /** @returns true if the link has enough to do; the reason is then the backlog */
  private waitsForLink(): boolean {
    if (this.phase !== "paced" || !this.gate.isShut || this.parts.standsStill()) return false;
    this.reason = "backlog";
    return true;
  }
}
