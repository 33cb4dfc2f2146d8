/**
 * Streams that a destination begins anew in post-copy: after this agent or that one has started again. Taken only while
 * somebody waits for them; until then the destination dials again.
 */
import { MigrationFault } from "../../shared/fault.ts";
import type { SourceChannel } from "../../shared/link/link.ts";
import { ResumingSource } from "../../shared/link/resume/resuming-source.ts";
import type { Hello } from "../../shared/protocol/messages.ts";
import { type Deferred, deferred } from "../../shared/runtime/deferred.ts";

/** Numbers of generations are random, so that a restarted agent does not say one again. */
const GENERATIONS = 2 ** 31 - 1;

export class RestartedStreams {
  /** The newest. */
  private link: ResumingSource | undefined;
  private open = false;
  private untaken: ResumingSource | undefined;
  private arrival: Deferred<void> = deferred();
  private readonly peer: string;

  constructor(peer: string) {
    this.peer = peer;
  }

  /** The guest runs at the destination: from now on it may begin anew. */
  listen(): void {
    this.open = true;
  }

  /** Resolves when there is one that was not taken yet. */
  get arrived(): Promise<void> {
    return this.arrival.promise;
  }

  /** The newest, if it was not taken yet. */
  take(): ResumingSource | undefined {
    const { untaken } = this;
    if (untaken === undefined) return undefined;
    this.untaken = undefined;
    this.arrival = deferred();
    return untaken;
  }

  /**
   * The migration is over. A stream that nobody has taken ends, so that the destination does not take its source for
   * one that will send pages; a later one is not let in.
   */
  end(): void {
    this.open = false;
    this.take()?.close(new MigrationFault("peer-lost", "This migration is over at its source"));
  }

  /** Is this dial-in one of these? `known`: the stream of the migration, where this agent has one. */
  takes(hello: Hello, known: ResumingSource | undefined): boolean {
    return hello.restarted || known === undefined || this.link !== undefined || known.isOver;
  }

  /** @throws MigrationFault `peer-lost` while nobody waits for one: it is to be tried again */
  accept(hello: Hello, channel: SourceChannel): void {
    if (!this.open)
      throw new MigrationFault("peer-lost", "This agent has started again, and will ask for this migration");
    const { link } = this;
    if (link !== undefined && !link.isOver && !hello.restarted) {
      link.attach(hello, channel);
      return;
    }
    const generation = 1 + Math.floor(Math.random() * GENERATIONS);
    const fresh = new ResumingSource({ patienceMs: Number.POSITIVE_INFINITY, peer: this.peer }, generation);
    fresh.attach(hello, channel);
    link?.close(new MigrationFault("peer-lost", "The destination has begun anew"));
    this.link = fresh;
    this.untaken = fresh;
    this.arrival.resolve();
  }
}
