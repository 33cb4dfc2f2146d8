/**
 * Binds a guest to the peers in the list `peers` of its definition. The destination asks whether the caller may bring
 * the guest. The source asks whether the destination that it calls may take the guest. Only a certificate answers
 * either question.
 */
import { MigrationFault, type Refusal } from "../../fault.ts";
import type { GuestDefinition } from "../../runtime/guest/guest-definition.ts";
import type { Caller, LinkLimits } from "../link.ts";
import { listedName, showNames } from "../tls/certificate-names.ts";

type Bound = Pick<GuestDefinition, "name" | "peers">;

/**
 * @returns why a caller may not bring this guest here; undefined where it may. The reason does not name the peers that
 *   may, since they are not the caller's business
 */
export function whyNotBrought({ name, peers }: Bound, caller: Caller): Refusal | undefined {
  if (peers === undefined || listedName(caller.names, peers) !== undefined) return undefined;
  const why =
    caller.names.length === 0
      ? "lists the peers that may bring it, and this caller has proven no name: it has called without TLS"
      : `does not let ${showNames(caller.names)} bring it ("peers")`;
  return {
    code: "guest-peers",
    message: `The destination's definition of ${name} ${why}; on that host change "peers" in ${name}.json of guests.directory${caller.names.length === 0 ? ", or set tls.ca, tls.certificate and tls.key of both agents" : ""}`,
  };
}

/**
 * Narrows how the source calls a destination for this guest: only a destination that may take the guest is accepted.
 * The certificate decides that before anything is sent to the destination.
 * @throws MigrationFault `not-authorised` for a guest with a list where there is no TLS, and so no certificate
 */
export function limitsFor({ name, peers }: Bound, limits: LinkLimits): LinkLimits {
  if (peers === undefined) return limits;
  const refuse = (who: string): MigrationFault =>
    new MigrationFault(
      "not-authorised",
      `${who} may not take ${name}: the guest's definition here lists the peers that may ("peers")`,
      {
        advice: `Migrate to a peer of the list, or add a name of its certificate to "peers" in ${name}.json of guests.directory here`,
      },
    );
  const { security } = limits;
  if (security?.kind !== "tls") throw refuse("A destination that is called without TLS, and proves no name,");
  return { ...limits, security: { ...security, only: { names: peers, refuse } } };
}

/**
 * Narrows how the destination dials the source of a guest: only the peer that has offered the guest is accepted.
 * Nothing is narrowed for a peer that has proven no name, as in clear.
 */
export function limitsToward(caller: Caller, limits: LinkLimits): LinkLimits {
  const { security } = limits;
  if (security?.kind !== "tls" || caller.names.length === 0) return limits;
  const refuse = (who: string): MigrationFault =>
    new MigrationFault("not-authorised", `${who} is not ${caller.name}, which has offered the guest`, {
      advice: "Set advertise of the source agent to an address of that agent itself",
    });
  return { ...limits, security: { ...security, only: { names: caller.names, refuse } } };
}
