/**
 * A guest whose command is a program beside each host's runtime directory. The definition is the same on both hosts,
 * but the program, and so what is started, may differ.
 */
import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Test } from "tap";
import { type GuestOptions, guestDefinition } from "./guest.ts";
import { openPair, type Pair, type PairOptions } from "./pair.ts";
import type { RigHost } from "./rig.ts";

const QEMU = "qemu-system-x86_64";

/** A line of such a program by which it becomes QEMU with the words of the definition. */
export const EXECUTES = `exec ${QEMU} "$@"`;

/** Makes lines of such a program by which it becomes QEMU with some words of the definition replaced. */
export const executesWith = (words: Readonly<Record<string, string>>): readonly string[] => [
  `for word; do case "$word" in`,
  ...Object.entries(words).map(([word, other]) => `${word}) word=${other};;`),
  `esac; set -- "$@" "$word"; shift; done`,
  EXECUTES,
];

/** Writes the program of a host. @param lines the lines of a shell script */
export function wrap(host: RigHost, ...lines: readonly string[]): void {
  const path = join(host.runtimeDirectory, "..", "start");
  writeFileSync(path, ["#!/bin/sh", ...lines, ""].join("\n"));
  chmodSync(path, 0o755);
}

/** Opens a pair with such a guest. The program of each host becomes QEMU until a test writes another one. */
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
