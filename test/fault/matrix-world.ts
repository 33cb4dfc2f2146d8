/**
 * The cells of hosts, disks, agents and others (docs/decisions/0043), each at the states in which something can be
 * lost.
 */
import type { Cell } from "./cell.ts";
import { AGENTS } from "./matrix-agents.ts";
import { DISKS } from "./matrix-disks.ts";
import { HOSTS } from "./matrix-hosts.ts";
import { OTHERS } from "./matrix-others.ts";

export const WORLD: readonly Cell[] = [...HOSTS, ...DISKS, ...AGENTS, ...OTHERS];
