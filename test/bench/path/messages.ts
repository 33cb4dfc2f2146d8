/**
 * What the processes of `npm run bench:path` say to each other. The program of one checkout starts the processes of
 * another, so a change here keeps what earlier commits say.
 */

/** What a process used for one migration. Times are CPU seconds, and faults are minor page faults. */
export interface Usage {
  readonly user: number;
  readonly system: number;
  readonly faults: number;
}

/** The argument of source.js and destination.js, as JSON. */
export interface Task {
  /** The folder of sockets and certificates. */
  readonly folder: string;
  readonly pages: number;
  /** "off", or a level of zstd. */
  readonly compression: "off" | number;
  readonly tls: boolean;
  /** True if the source keeps the memory of a migration for the next one (memory.keep=on). */
  readonly keep: boolean;
}

/** Tells source.js to begin a migration. It answers with Begun, and with Ended when the destination has everything. */
export interface SourceOrder {
  /** The path at which source.js takes QEMU's stream. */
  readonly streamPath: string;
}

export interface Begun {
  readonly kind: "begun";
  /** Where destination.js dials. */
  readonly address: string;
}

/** Tells destination.js to fetch a migration. It answers with Ended when the player of QEMU has everything. */
export interface DestinationOrder {
  readonly address: string;
  /** The socket of the process that plays the destination's QEMU. */
  readonly playerPath: string;
}

export interface Ended {
  readonly kind: "ended";
  readonly usage: Usage;
  /** What it took afterwards to give memory back to the system. */
  readonly after: Usage;
  /** The bodies of all frames, bytes. */
  readonly wireBytes: number;
}
