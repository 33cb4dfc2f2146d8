/**
 * MigrationService as each agent serves it. The source agent serves every method. The destination agent serves the
 * methods about a migration that comes to its host. Its answer to the other methods names the source agent as the one
 * to ask.
 */
import type {
  handleServerStreamingCall,
  handleUnaryCall,
  ServerWritableStream,
  UntypedServiceImplementation,
} from "@grpc/grpc-js";
import { MigrationFault } from "../../fault.ts";
import type { PlanCall } from "../../protocol/plan-view.ts";
import { isFinal, type MigrateCall, type MigrationView, type ResolveCall } from "../../protocol/report.ts";
import type { MigrationOperator, SourceService } from "../link.ts";
import { orThrow, type Received } from "../wire/proto-files.ts";
import { toStatus } from "../wire/status.ts";
import type { Auditing } from "./audit.ts";
import type { AnyCall } from "./caller.ts";
import type { Gate } from "./gate.ts";
import type { OperatorStreams } from "./operator-streams.ts";
import type { migrationService } from "./services.ts";
import { unaryBehind } from "./unary.ts";

/** One handler for each method of the service: a forgotten one does not compile. */
type Handlers = { [Method in keyof typeof migrationService]: UntypedServiceImplementation[string] };

/** What the handlers of both agents need. */
export interface OperatorParts {
  readonly streams: OperatorStreams;
  readonly audit: Auditing;
}

/** The handlers of a source agent. */
export function sourceOperators(gate: Gate<SourceService>, parts: OperatorParts): Handlers {
  const unary = unaryBehind(gate);
  const watching = watchingBehind(gate, parts.streams);
  return {
    ...shared(gate, parts),
    ListGuests: unary((service) => service.listGuests()),
    Plan: unary((service, asked: PlanCall, call) => {
      parts.audit(call, { call: "Plan", ...named(asked.migration) });
      return service.plan(asked);
    }),
    Migrate: watching(async (service, asked: MigrateCall, call) => {
      parts.audit(call, { call: "Migrate", ...named(asked) });
      return service.migrate(asked);
    }),
    GetHeatMap: unary(async (service, call: { idOrGuest: string; cells: number }) =>
      service.heatMap(call.idOrGuest, call.cells),
    ),
  };
}

const named = ({ guest, to }: MigrateCall): Pick<MigrateCall, "guest" | "to"> => ({ guest, to });

/** The handlers of a destination agent. */
export const destinationOperators = (gate: Gate<MigrationOperator>, parts: OperatorParts): Handlers => ({
  ...shared(gate, parts),
  ListGuests: elsewhere(gate, "which guests this host has"),
  Plan: elsewhere(gate, "what a migration would take"),
  Migrate: (call: ServerWritableStream<unknown, unknown>): void => {
    call.emit("error", toStatus(atTheSource("to migrate a guest")));
  },
  GetHeatMap: elsewhere(gate, "where a guest writes"),
});

function shared<Service extends MigrationOperator>(gate: Gate<Service>, { streams, audit }: OperatorParts) {
  const unary = unaryBehind(gate);
  return {
    GetMigration: unary(async (service, id: string) => service.getMigration(id)),
    ListMigrations: unary(async (service) => service.listMigrations()),
    WatchMigration: watchingBehind(gate, streams)(async (_, id: string) => id),
    CancelMigration: unary((service, id: string, call) => {
      audit(call, { call: "CancelMigration", id });
      return service.cancel(id);
    }),
    ResolveMigration: unary((service, asked: ResolveCall, call) => {
      audit(call, { call: "ResolveMigration", ...asked });
      return service.resolve(asked);
    }),
  };
}

const elsewhere = (gate: Gate<MigrationOperator>, what: string): handleUnaryCall<unknown, unknown> =>
  unaryBehind(gate)(() => Promise.reject(atTheSource(what)));

/** Makes the fault of a method that only a source agent serves. @param what the words after "is the one to ask" */
const atTheSource = (what: string): MigrationFault =>
  new MigrationFault("not-supported", `The source agent is the one to ask ${what}; this is a destination agent`, {
    advice: "Name the source agent of the host on which the guest runs, with --agent or FERRY_AGENT",
  });

/** Makes a handler. `begin` returns the id of the migration whose views the handler streams. */
type Watching<Service> = <Request>(
  begin: (service: Service, request: Request, call: AnyCall) => Promise<string>,
) => handleServerStreamingCall<Received<Request>, MigrationView>;

/**
 * Makes handlers that stream the views of a migration until its end. A client that does not read misses views in
 * between, but never the last one.
 */
const watchingBehind =
  <Service extends MigrationOperator>(gate: Gate<Service>, streams: OperatorStreams): Watching<Service> =>
  (begin) =>
  (call) => {
    const start = async (): Promise<void> => {
      const request = orThrow(call.request);
      streams.admit(call);
      const service = await gate.pass(call);
      follow(call, await begin(service, request, call), service);
    };
    start().catch((thrown: unknown) => call.emit("error", toStatus(thrown)));
  };

function follow<Request>(
  call: ServerWritableStream<Request, MigrationView>,
  id: string,
  service: MigrationOperator,
): void {
  // the client left while the migration was being started
  if (call.cancelled) return;
  let behind = false;
  let end: (() => void) | undefined;
  let ended = false;
  const finish = (): void => {
    // "cancelled" is also emitted after an orderly end
    if (ended) return;
    ended = true;
    end?.();
  };
  call.on("cancelled", finish);
  call.on("drain", () => {
    behind = false;
  });
  end = service.watch(id, (view) => {
    if (ended || (behind && !isFinal(view.status))) return;
    behind = !call.write(view);
    if (!isFinal(view.status)) return;
    finish();
    call.end();
  });
  if (ended) end();
}
