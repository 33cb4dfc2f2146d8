/**
 * The gate in front of a service. An agent binds its ports before it takes up what its journal knows, so that no second
 * agent can take up the same journal. Calls that come in meanwhile wait at the gate until the agent can answer them.
 * Calls of health and reflection do not wait.
 */
import { MigrationFault } from "../../fault.ts";
import { deferred } from "../../runtime/deferred.ts";

/** The part of a call that tells whether its caller has left while it waited. */
interface Leaving {
  readonly cancelled: boolean;
}

export class Gate<Service> {
  private service: Service | undefined;
  private readonly waiting = deferred<Service>();

  /** Makes a gate for `service` that is open from the start. A gate is returned as it is. */
  static opened<Service extends object>(service: Service | Gate<Service>): Gate<Service> {
    if (service instanceof Gate) return service;
    const gate = new Gate<Service>();
    gate.open(service);
    return gate;
  }

  get isOpen(): boolean {
    return this.service !== undefined;
  }

  /** Opens the gate. Calls that wait go on, in the order in which they came. */
  open(service: Service): void {
    this.service = service;
    this.waiting.resolve(service);
  }

  /** Runs `action` with the service: before this call returns if the gate is open, and else when the gate opens. */
  whenOpen(action: (service: Service) => void): void {
    if (this.service !== undefined) action(this.service);
    else void this.waiting.promise.then(action);
  }

  /**
   * Resolves with the service for one call, when the gate is open. A caller that left while it waited is not served,
   * since it would not hear of what it started.
   * @throws MigrationFault `cancelled` when the caller has left
   */
  async pass(call: Leaving): Promise<Service> {
    if (this.service !== undefined) return this.service;
    const service = await this.waiting.promise;
    if (call.cancelled)
      throw new MigrationFault("cancelled", "The caller left while the agent took up what its journal knows");
    return service;
  }
}
