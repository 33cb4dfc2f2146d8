/**
 * Estimates the downtime of a copy if the guest were stopped now: what is left to send, what is on its way, and what
 * any switchover costs. Pure: everything is in the observation. Times are in milliseconds.
 */
import { ROUND_TRIPS } from "../../shared/model/switchover.ts";
import type { Observation } from "./observation.ts";

/**
 * What a switchover costs whatever the residual, milliseconds: QEMU's stop and last sweep, the device state, loading
 * it, the journals, and `cont`. It was measured with the demo's guest (docs/results/). It is one figure for all guests:
 * what earlier migrations measured does not change it.
 */
export const FIXED_COST_MS = 25;
/**
 * How long the destination's QEMU takes for a zero page, microseconds: it checks whether the page is zero already
 * (migration/ram.c, ram_handle_zero). The link carries the zero pages of a first pass almost at once, but QEMU does not
 * load them at once: 130 000 of them made a downtime 0.1 s longer (docs/design/switchover.md#constants).
 */
const ZERO_PAGE_MICROS = 1;

/**
 * How long the link takes for `bytes`, which are encoded, and the agents for `pages`, milliseconds. The function takes
 * plain numbers and not an Observation, because in the first pass it runs once for each read of QEMU's socket.
 */
export const sendingMs = (bytes: number, bytesPerSecond: number, pages: number, microsPerPage: number): number =>
  (1000 * bytes) / Math.max(1, bytesPerSecond) + (pages * microsPerPage) / 1000;

/** How long it takes to send what is captured and not sent, milliseconds. */
export const residualMs = ({ residualBytes, residualPages, bytesPerSecond, microsPerPage }: Observation): number =>
  sendingMs(residualBytes, bytesPerSecond, residualPages, microsPerPage);

/** How long it takes until what is in flight has come and is loaded, milliseconds. */
export const onItsWayMs = ({ inFlightBytes, inFlightZeroPages, bytesPerSecond }: Observation): number =>
  sendingMs(inFlightBytes, bytesPerSecond, inFlightZeroPages, ZERO_PAGE_MICROS);

/** The part of the estimate that depends neither on the residual nor on what is in flight, milliseconds. */
export const constantMs = ({ roundTripMs }: Observation): number => FIXED_COST_MS + ROUND_TRIPS * roundTripMs;

/** The estimated downtime if the guest were stopped now, milliseconds. */
export function estimateMs(seen: Observation): number {
  const pages = seen.residualPages + seen.sweptPages;
  const bytes = seen.residualBytes + seen.sweptPages * seen.bytesPerPage;
  const leftMs = sendingMs(bytes, seen.bytesPerSecond, pages, seen.microsPerPage);
  return constantMs(seen) + leftMs + onItsWayMs(seen);
}
