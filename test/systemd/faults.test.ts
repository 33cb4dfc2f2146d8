/**
 * Tests cells of the fault matrix with the agents and the guest in their units, under systemd: an agent's unit ends, a
 * guest's unit ends, post-copy, a whole host. All cells: npm run test:faults -- --units
 */
import t from "tap";
import { testCells } from "../fault/test-cells.ts";
import { noSystemdHost } from "../support/systemd-host.ts";

t.setTimeout(900_000);

const CELLS = [
  "loaded: kill destination agent",
  "loaded: kill source QEMU",
  "post-copy, destination pulling: kill destination QEMU",
  "destination owning: kill destination host, returns",
];

t.test("these faults end well under systemd", { skip: noSystemdHost() }, (t) => testCells(t, CELLS, { units: true }));
