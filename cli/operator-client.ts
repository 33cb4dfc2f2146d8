/** What `ferry` needs of an agent: MigrationService (proto/ferry/v1/operator.proto), as a client sees it. */
import type { PlanCall, PlanView } from "../shared/protocol/plan-view.ts";
import type { GuestView, HeatMapBlock, MigrateCall, MigrationView, ResolveCall } from "../shared/protocol/report.ts";

/**
 * A client of an agent. Every call throws MigrationFault: the agent's own fault, or `peer-unreachable`, `peer-lost` or
 * `timeout`.
 */
export interface OperatorClient {
  listGuests(): Promise<readonly GuestView[]>;
  plan(call: PlanCall): Promise<PlanView>;
  /**
   * Moves a guest and shows the views of the migration. Resolves when the stream has ended without a fault, or when
   * `signal` was aborted. Aborting leaves the migration to itself.
   */
  migrate(call: MigrateCall, observer: (view: MigrationView) => void, signal: AbortSignal): Promise<void>;
  /** Shows the views of a migration from now on. Resolves as migrate() does. */
  watch(id: string, observer: (view: MigrationView) => void, signal: AbortSignal): Promise<void>;
  listMigrations(): Promise<readonly MigrationView[]>;
  /** Resolves when the migration has ended. */
  cancel(id: string): Promise<MigrationView>;
  heatMap(idOrGuest: string, cells: number): Promise<readonly HeatMapBlock[]>;
  /** @throws MigrationFault `needs-confirmation` with what the operator must have made sure of */
  resolve(call: ResolveCall): Promise<MigrationView>;
  close(): void;
}
