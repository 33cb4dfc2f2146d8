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
   * Moves a guest, and calls `observer` with the views of the migration. Resolves when the stream has ended without a
   * fault, or when `signal` was aborted. Aborting ends only the stream: the migration goes on.
   */
  migrate(call: MigrateCall, observer: (view: MigrationView) => void, signal: AbortSignal): Promise<void>;
  /** Calls `observer` with the views of a migration from now on. Resolves and aborts as migrate() does. */
  watch(id: string, observer: (view: MigrationView) => void, signal: AbortSignal): Promise<void>;
  listMigrations(): Promise<readonly MigrationView[]>;
  /**
   * Cancels a migration. Resolves when the migration has ended, when it cannot end by itself, or when the agent has
   * waited long enough for its end. The status of the view says which.
   */
  cancel(id: string): Promise<MigrationView>;
  heatMap(idOrGuest: string, cells: number): Promise<readonly HeatMapBlock[]>;
  /** @throws MigrationFault `needs-confirmation`, which says what the operator must have made sure of */
  resolve(call: ResolveCall): Promise<MigrationView>;
  close(): void;
}
