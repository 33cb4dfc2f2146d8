/**
 * Why QEMU's stream is left unread, and when it is read on. Who does not read holds QEMU's migration thread in its socket, and with it
 * the next sync of its dirty bitmap; the guest runs on.
 *
 * - `room`: the arena is full;
 * - `backlog`: what waits keeps the link busy, so a sync would be too early (backlog-gate.ts);
 * - `pace`: the last sync was just now (sync-pace.ts).
 */
import type { Clock } from "../../shared/runtime/clock.ts";
import { BacklogGate, type LinkWork } from "./backlog-gate.ts";
import type { SyncPace } from "./sync-pace.ts";

export interface ReadHoldOptions {
  readonly pace: SyncPace;
  readonly work: LinkWork;
  /** The guest stands still: QEMU has nothing to sync, and completes as soon as it has sent all. */
  readonly standsStill: () => boolean;
  readonly clock: Clock;
  /** Reading goes on. */
  readonly onResume: () => void;
}

/** *Closing* are the sweeps ahead of the last pages, *final* those: nothing but a full arena holds either up. */
export type CapturePhase = "first-pass" | "paced" | "closing" | "final";

export class ReadHold {
  phase: CapturePhase = "first-pass";
  private readonly parts: ReadHoldOptions;
  private readonly gate: BacklogGate;
  private reason: "nothing" | "room" | "backlog" | "pace" = "nothing";
  private timer: NodeJS.Timeout | undefined;

  constructor(parts: ReadHoldOptions) {
    this.parts = parts;
    this.gate = new BacklogGate(parts.work);
  }

  /** The switch is near: what waits goes before the next sync. */
  drains(near: boolean): void {
    this.gate.drains = near;
  }

  /** Is the next page of the first pass left unread? Whatever is captured ahead of the link may be dirtied again before it goes. */
  beforeFirst(): boolean {
    return this.phase === "first-pass" && this.waitsForLink();
  }

  /**
   * Is the next section left unread?
   * @param pages of the one that ended
   * @param drained it left nothing dirty that QEMU knew of: a sync follows
   * @param near the switch is near
   */
  behindSection(pages: number, drained: boolean, near: boolean): boolean {
    if (this.parts.standsStill()) return false;
    if (drained && this.waitsForLink()) return true;
    const waitMs = this.parts.pace.holdMs(pages, drained, this.parts.clock.monotonicMs(), near);
    if (waitMs <= 0) return false;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.resume(), waitMs);
    this.reason = "pace";
    return true;
  }

  /** The arena takes no more. */
  forRoom(): void {
    this.reason = "room";
  }

  /** Pages left the arena. */
  roomMade(): void {
    if (this.reason === "room") this.resume();
    else this.lookAgain();
  }

  /** Pages were sent, or time has passed. */
  lookAgain(): void {
    if (this.reason !== "backlog" || !this.gate.opens) return;
    this.parts.pace.begins(this.parts.clock.monotonicMs());
    this.resume();
  }

  /** Reads on, whatever it was held for. */
  resume(): void {
    clearTimeout(this.timer);
    this.reason = "nothing";
    this.parts.onResume();
  }

  stop(): void {
    clearTimeout(this.timer);
  }

  private waitsForLink(): boolean {
    const atFullSpeed = this.phase === "closing" || this.phase === "final";
    if (atFullSpeed || !this.gate.isShut || this.parts.standsStill()) return false;
    this.reason = "backlog";
    return true;
  }
}
