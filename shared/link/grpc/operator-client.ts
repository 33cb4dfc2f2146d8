/** The client of MigrationService, for the CLI, for tests and for the agents' warm-up. */
import { type Client, type ClientReadableStream, Metadata, type ServiceError } from "@grpc/grpc-js";
import { MigrationFault } from "../../fault.ts";
import type { PlanCall, PlanView } from "../../protocol/plan-view.ts";
import type { GuestView, HeatMapBlock, MigrateCall, MigrationView, ResolveCall } from "../../protocol/report.ts";
import { systemClock } from "../../runtime/clock.ts";
import type { Dialled } from "../tls/connection-fault.ts";
import { type LinkSecurity, OPERATOR_IN_CLEAR } from "../tls/security.ts";
import { type DomainMethod, orThrow, type Received } from "../wire/proto-files.ts";
import { fromStatus } from "../wire/status.ts";
import { dial } from "./grpc-link.ts";
import { migrationService } from "./services.ts";
import { callFault } from "./wrong-port.ts";

/** An operator pulls no pages, so a small receive window is enough. */
const LIMITS = { receiveWindowBytes: 1 << 20, messageBytes: 8 << 20 };

/**
 * How much longer than its observation a plan may take, milliseconds. An agent reads the guest's memory once before it
 * can look at what the guest dirties; in this time it reads hundreds of GB.
 */
const FIRST_COPY_MS = 600_000;

/** Every method throws a MigrationFault: the agent's own fault, or `peer-unreachable`, `peer-lost`, `peer-invalid`. */
export class GrpcOperatorClient {
  private readonly client: Client;
  private readonly dialled: Dialled;
  private readonly timeoutMs: number;

  /**
   * @param timeoutMs how long a call that is answered at once may take, milliseconds; a migration or a watch may take
   *   any time
   * @param security when it is left out, any address is called in clear: the agent decides whether it serves callers in
   *   clear
   */
  constructor(address: string, timeoutMs: number, security: LinkSecurity = OPERATOR_IN_CLEAR) {
    ({ client: this.client, dialled: this.dialled } = dial(address, { ...LIMITS, security }));
    this.timeoutMs = timeoutMs;
  }

  listGuests(): Promise<readonly GuestView[]> {
    return this.unary(migrationService.ListGuests, {});
  }

  /** Takes as long as the guest is observed, and before that as long as one reading of its memory takes. */
  plan(call: PlanCall): Promise<PlanView> {
    return this.unary(migrationService.Plan, call, call.observeMs > 0 ? call.observeMs + FIRST_COPY_MS : 0);
  }

  migrate(call: MigrateCall, observer: (view: MigrationView) => void, signal: AbortSignal): Promise<void> {
    return this.stream(migrationService.Migrate, call, observer, signal);
  }

  watch(id: string, observer: (view: MigrationView) => void, signal: AbortSignal): Promise<void> {
    return this.stream(migrationService.WatchMigration, id, observer, signal);
  }

  getMigration(id: string): Promise<MigrationView> {
    return this.unary(migrationService.GetMigration, id);
  }

  listMigrations(): Promise<readonly MigrationView[]> {
    return this.unary(migrationService.ListMigrations, {});
  }

  cancel(id: string): Promise<MigrationView> {
    return this.unary(migrationService.CancelMigration, id);
  }

  heatMap(idOrGuest: string, cells: number): Promise<readonly HeatMapBlock[]> {
    return this.unary(migrationService.GetHeatMap, { idOrGuest, cells });
  }

  resolve(call: ResolveCall): Promise<MigrationView> {
    return this.unary(migrationService.ResolveMigration, call);
  }

  close(): void {
    this.client.close();
  }

  private unary<Request, Response>(
    method: DomainMethod<Request, Response>,
    request: Request,
    moreMs = 0,
  ): Promise<Response> {
    const options = { deadline: systemClock.nowUs() / 1000 + this.timeoutMs + moreMs };
    return new Promise((resolve, reject) => {
      const done = (error: ServiceError | null, received?: Received<Response>): void => {
        if (error !== null) void callFault(error, this.client, this.dialled, "either").then(reject);
        else if (received instanceof MigrationFault) reject(received);
        else if (received !== undefined) resolve(received);
        else reject(new MigrationFault("peer-invalid", "The agent answered nothing"));
      };
      this.client.makeUnaryRequest(
        method.path,
        method.requestSerialize,
        method.responseDeserialize,
        request,
        new Metadata(),
        options,
        done,
      );
    });
  }

  private stream<Request>(
    method: DomainMethod<Request, MigrationView>,
    request: Request,
    observer: (view: MigrationView) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const { path, requestSerialize, responseDeserialize } = method;
    const call: ClientReadableStream<Received<MigrationView>> = this.client.makeServerStreamRequest(
      path,
      requestSerialize,
      responseDeserialize,
      request,
    );
    return new Promise((resolve, reject) => {
      const onAbort = (): void => call.cancel();
      let [seen, hasFailed] = [false, false];
      signal.addEventListener("abort", onAbort, { once: true });
      call.on("data", (received: Received<MigrationView>) => {
        seen = true;
        try {
          observer(orThrow(received));
        } catch (thrown) {
          reject(thrown);
          call.cancel();
        }
      });
      call.on("error", (error: ServiceError) => {
        signal.removeEventListener("abort", onAbort);
        hasFailed = true;
        if (signal.aborted) resolve();
        else if (seen) reject(fromStatus(error, "peer-lost", this.dialled));
        else void callFault(error, this.client, this.dialled, "either").then(reject);
      });
      call.on("end", () => {
        signal.removeEventListener("abort", onAbort);
        // after an error callFault() is still finding out which fault it is
        if (!hasFailed) resolve();
      });
      if (signal.aborted) onAbort();
    });
  }
}
