/**
 * The states of a migration at its source, as one table: the type of the edges, the diagram in docs/ and the driver
 * (agent-source/source-migration.ts) all come from it. Until *switching* the guest runs at the source.
 *
 * Journal: `granted` is written before the grant is sent; see ownership.ts for the rule that needs it.
 * Post-copy will add *serving* and *lost* between *granting* and the end.
 */
import type { MigrationStatus } from "./report.ts";

export const SOURCE_EDGES = {
  /** Reads the guest's definition and asks its QEMU. */
  planned: ["negotiating", "keeping"],
  /** Asks the destination. */
  negotiating: ["staging", "keeping"],
  /** The destination has a waiting QEMU and dials in; the link is measured. */
  staging: ["copying", "keeping"],
  /** QEMU's feed of dirty pages is on; the guest runs. */
  copying: ["switching", "keeping"],
  /** SWITCHOVER_ACK was given: QEMU stops the guest, the rest is sent, the destination loads it. */
  switching: ["granting", "keeping"],
  /** The source QEMU cannot run by itself any more; the guest is being given away. */
  granting: ["released", "inDoubt", "keeping"],
  /** Granted, and no word from the destination. */
  inDoubt: ["released", "keeping"],
  /** Makes sure that the guest runs here and nothing is left there. */
  keeping: ["kept", "inDoubt"],
  /** The guest runs at the destination. */
  released: [],
  /** The guest runs at the source. */
  kept: [],
} as const satisfies Record<string, readonly string[]>;

export type SourceStateName = keyof typeof SOURCE_EDGES;
/** Where each state may lead; `never` for the final ones. */
export type SourceEdges = { [K in SourceStateName]: (typeof SOURCE_EDGES)[K][number] };
export type LiveSourceState = { [K in SourceStateName]: SourceEdges[K] extends never ? never : K }[SourceStateName];

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
    case "keeping":
      return "switching";
    case "granting":
      return "granting";
    case "inDoubt":
      return "inDoubt";
    case "released":
      return "moved";
    case "kept":
      return cancelled ? "cancelled" : "failed";
  }
}
