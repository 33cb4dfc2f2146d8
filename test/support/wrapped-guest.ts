/**
 * A guest whose command is a program beside each host's runtime directory. Its definition is the same on both hosts,
 * and what is started by it need not be.
 */
import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Test } from "tap";
import { type GuestOptions, guestDefinition } from "./guest.ts";
import { openPair, type Pair, type PairOptions } from "./pair.ts";
import type { RigHost } from "./rig.ts";

const QEMU = "qemu-system-x86_64";

/** A line of such a program: it is QEMU, as the definition says. */
export const EXECUTES = `exec ${QEMU} "$@"`;

/** Lines of such a program: it is QEMU with other words than those of the definition. */
export const executesWith = (words: Readonly<Record<string, string>>): readonly string[] => [
  `for word; do case "$word" in`,
  ...Object.entries(words).map(([word, other]) => `${word}) word=${other};;`),
  `esac; set -- "$@" "$word"; shift; done`,
  EXECUTES,
];

/** @param lines of a shell's program */
export function wrap(host: RigHost, ...lines: readonly string[]): void {
  const path = join(host.runtimeDirectory, "..", "start");
  writeFileSync(path, ["#!/bin/sh", ...lines, ""].join("\n"));
  chmodSync(path, 0o755);
}

/** The program of each host is QEMU until a test says otherwise. */
export async function openWrapped(t: Test, guest: GuestOptions, options: Partial<PairOptions> = {}): Promise<Pair> {
  const plain = guestDefinition(guest);
  const definition = { ...plain, command: ["{runtime}/../start", ...plain.command.slice(1)] };
  const pair = await openPair(t, {
    ...options,
    guest,
    prepare: (rig) => {
      for (const host of [rig.a, rig.b]) wrap(host, EXECUTES);
      rig.writeDefinition(definition);
    },
  });
  return { ...pair, definition };
}
