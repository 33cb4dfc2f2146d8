/**
 * The cells of the fault matrix that stand for the others; `npm run test:faults` runs them all. A cut of the link in
 * the first pass is in link-cut.test.ts.
 */
import t from "tap";
import { testCells } from "./test-cells.ts";

t.setTimeout(900_000);

const CELLS = [
  "first pass: kill source agent",
  "switching: cut for good",
  "destination loading: kill destination QEMU",
  "loaded: kill source QEMU",
  "granted: kill source agent",
  "destination starting: kill destination agent",
  "post-copy, source recording: kill source agent",
  "post-copy, source serving: kill destination agent",
  "post-copy, destination pulling: kill destination QEMU",
  // hosts, disks, people and supervisors (matrix-world.ts)
  "source granting: kill source host, for good",
  "destination owning: kill destination host, returns",
  "post-copy, destination pulling: outsider's pmemsave at the destination + kill keeper + cut 5 s + kill destination agent",
  "destination loaded: destination disk full for good",
  "source granting: kill source QEMU, supervisor asks",
];

t.test("no fault loses, doubles or corrupts the guest, or is in the way of the next attempt", (t) =>
  testCells(t, CELLS),
);
