/**
 * The states of a migration at its source, as one table: state, outcome, next state. The types of the edges, the diagram
 * in docs/, the driver (agent-source/source-migration.ts) and the search for two running guests (test/model/) all use
 * it. Until *switching* the guest runs at the source; until *retiring* its QEMU would also run it again by itself.
 *
 * Journal-first: *recording* ends with `granted` on the disk, and only *granting* sends the grant (ownership.ts).
 */
import type { MigrationStatus } from "./report.ts";

export const SOURCE_STATES = {
  /** Reads the guest's definition and asks its QEMU. */
  planned: { carriable: "negotiating", fault: "keeping" },
  /** Asks the destination. */
  negotiating: { agreed: "staging", fault: "keeping" },
  /** The destination has a waiting QEMU and dials in; the link is measured. */
  staging: { feeding: "copying", fault: "keeping" },
  /** QEMU's feed of dirty pages is on; the guest runs, or is paused as it was found. */
  copying: { decided: "switching", fault: "keeping" },
  /** SWITCHOVER_ACK was given: QEMU stops the guest (one that is paused needs none), the rest is sent, the destination loads it. */
  switching: { loaded: "retiring", fault: "keeping" },
  /** SHUT is said: the source QEMU ends its migration and never runs the guest by itself again. */
  retiring: { retired: "recording", fault: "keeping" },
  /** `granted` goes into the journal; nothing was said to anybody yet. */
  recording: { written: "granting", fault: "keeping" },
  /** The grant is sent. Only the proof of its refusal gives the guest back. */
  granting: { running: "releasing", pulling: "serving", refused: "keeping", fault: "inDoubt" },
  /** Granted, and no word: the destination is asked again and again, and the operator may say where the guest is. */
  inDoubt: {
    running: "releasing",
    pulling: "serving",
    refused: "keeping",
    keepSource: "keeping",
    keepDestination: "releasing",
    keepPulling: "serving",
    fault: "inDoubt",
  },
  /** Post-copy: the guest runs at the destination, and gets the pages that are still here. */
  serving: { served: "releasing", lost: "inDoubt", broken: "stranded", fault: "serving" },
  /** The guest runs at the destination: the journal says so, and the QEMU that is left here ends. */
  releasing: { done: "released", fault: "released" },
  /** Makes sure that the guest runs here and nothing is left there; as long as it takes. */
  keeping: { done: "kept", fault: "keeping" },
  /** The guest runs at the destination. */
  released: {},
  /** The guest is at the source. */
  kept: {},
  /** The guest runs at the destination until it needs a page that is lost. */
  stranded: {},
} as const satisfies Record<string, Readonly<Record<string, string>>>;

type Table = typeof SOURCE_STATES;
export type SourceStateName = keyof Table;
export type SourceOutcome<K extends SourceStateName> = keyof Table[K];
/** Where each state may lead; `never` for the final ones. */
export type SourceEdges = { [K in SourceStateName]: Table[K][keyof Table[K]] };
export type LiveSourceState = { [K in SourceStateName]: SourceEdges[K] extends never ? never : K }[SourceStateName];

/** The transition function: no state of a source migration comes about but through it. */
export const afterSource = <K extends SourceStateName, O extends SourceOutcome<K>>(state: K, outcome: O): Table[K][O] =>
  SOURCE_STATES[state][outcome];

/** What the source QEMU is found to be doing by an agent that starts again; `retired`: it has completed its migration. */
export type SourceQemu = "active" | "retired" | "gone";

/**
 * Where an agent that starts again takes a migration up (DESIGN 6, 5), from its last record and what QEMU says.
 * A QEMU that is not retired was never told to complete, or was told to run again: nothing is granted (any more).
 */
export function recoverSource(
  record: "plan" | "granted" | "released" | "kept",
  qemu: SourceQemu,
): "keeping" | "inDoubt" | "released" | "kept" {
  switch (record) {
    case "plan":
      return "keeping";
    case "granted":
      return qemu === "active" ? "keeping" : "inDoubt";
    case "released":
    case "kept":
      return record;
  }
}

/** What the operator sees of a state; `cancelled` tells a kept guest from a failed migration. */
export function sourceStatus(state: SourceStateName, cancelled: boolean): MigrationStatus {
  switch (state) {
    case "planned":
    case "negotiating":
    case "staging":
      return "preparing";
    case "copying":
      return "copying";
    case "switching":
      return "switching";
    case "retiring":
    case "recording":
    case "granting":
    case "releasing":
      return "granting";
    case "serving":
      return "serving";
    case "keeping":
      return "undoing";
    case "inDoubt":
      return "inDoubt";
    case "released":
      return "moved";
    case "kept":
      return cancelled ? "cancelled" : "failed";
    case "stranded":
      return "failed";
  }
}
