/**
 * Transfer streams that a destination begins again in post-copy, after one of the two agents was started again, or a
 * stream was lost. Such a stream is accepted only once the migration waits for one (in *serving*, or in *inDoubt*
 * during post-copy). Before that the destination has to dial again.
 */
import { MigrationFault } from "../../shared/fault.ts";
import type { SourceChannel } from "../../shared/link/link.ts";
import { ResumingSource } from "../../shared/link/resume/resuming-source.ts";
import type { Hello } from "../../shared/protocol/stream-messages.ts";
import { type Clock, systemClock } from "../../shared/runtime/clock.ts";
import { type Deferred, deferred } from "../../shared/runtime/deferred.ts";

/**
 * The largest generation of a stream. A generation is a number by which the destination tells a stream that begins
 * again from the streams before it. The numbers are random, so that a source agent that was started again does not give
 * a number that it has given before.
 */
const GENERATIONS = 2 ** 31 - 1;

export class RestartedStreams {
  /** The newest stream. */
  private link: ResumingSource | undefined;
  private open = false;
  /** The newest stream until take() has returned it. */
  private untaken: ResumingSource | undefined;
  private arrival: Deferred<void> = deferred();
  private readonly peer: string;
  private readonly clock: Clock;

  constructor(peer: string, clock: Clock = systemClock) {
    this.peer = peer;
    this.clock = clock;
  }

  /** Accepts restarted streams from now on, since the guest runs at the destination, or may run there. */
  listen(): void {
    this.open = true;
  }

  /** Resolves when there is a stream that was not taken yet. */
  get arrived(): Promise<void> {
    return this.arrival.promise;
  }

  /** Takes the newest stream. @returns undefined where it was taken before, or there is none */
  take(): ResumingSource | undefined {
    const { untaken } = this;
    if (untaken === undefined) return undefined;
    this.untaken = undefined;
    this.arrival = deferred();
    return untaken;
  }

  /**
   * Notes that the migration is over. A stream that was not taken ends, so that the destination does not wait for pages
   * from this source; a later stream is not accepted.
   */
  end(): void {
    this.open = false;
    this.take()?.close(new MigrationFault("peer-lost", "This migration is over at its source"));
  }

  /**
   * Tells whether a dial-in begins or continues a restarted stream, and so is for accept().
   * @param known the first stream of the migration, where this agent has one
   */
  takes(hello: Hello, known: ResumingSource | undefined): boolean {
    return hello.restarted || known === undefined || this.link !== undefined || known.isOver;
  }

  /**
   * Accepts a dial-in: it continues the newest stream, or begins a stream that replaces it.
   * @throws MigrationFault `peer-lost` while the migration waits for no stream: the destination is to dial again
   */
  accept(hello: Hello, channel: SourceChannel): void {
    if (!this.open)
      throw new MigrationFault("peer-lost", "The source waits for no stream of this migration now: dial again");
    const { link, peer, clock } = this;
    if (link !== undefined && !link.isOver && !hello.restarted) {
      link.attach(hello, channel);
      return;
    }
    const generation = 1 + Math.floor(Math.random() * GENERATIONS);
    const fresh = new ResumingSource({ patienceMs: Number.POSITIVE_INFINITY, peer, clock }, generation);
    fresh.attach(hello, channel);
    link?.close(new MigrationFault("peer-lost", "The destination has begun another stream"));
    this.link = fresh;
    this.untaken = fresh;
    this.arrival.resolve();
  }
}
