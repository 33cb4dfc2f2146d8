/**
 * The world as it is (docs/decisions/0043), each part of it at the states in which the tables have something to lose.
 */
import type { Cell } from "./cell.ts";
import { AGENTS } from "./matrix-agents.ts";
import { DISKS } from "./matrix-disks.ts";
import { HOSTS } from "./matrix-hosts.ts";
import { OTHERS } from "./matrix-others.ts";

export const WORLD: readonly Cell[] = [...HOSTS, ...DISKS, ...AGENTS, ...OTHERS];
