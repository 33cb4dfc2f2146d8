/**
 * Constants of the switchover, for the predictions before and during a migration and for the policy that decides when
 * to switch.
 */

/** How many round trips lie between STOP and RESUME: one for `loaded`, one for the grant. */
export const ROUND_TRIPS = 2;
/** The fraction of the downtime target that sending the held pages may take (docs/design/switchover.md#held-pages). */
export const HOLD_SHARE = 0.25;
/** The shortest closing sweep, seconds. */
export const SWEEP_SECONDS = 0.005;
