/** Joins the two namespaces of a test network, by a veth pair or by a cable with a length (delay.c). */
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { packageRoot } from "../../shared/runtime/package-root.ts";
import { bounded } from "./bounded.ts";
import { run } from "./process.ts";

export interface CableEnd {
  readonly namespace: string;
  readonly interfaceName: string;
}

export interface Cable {
  /** Removes the cable. Its interfaces go with it, or with their namespaces. */
  remove(): Promise<void>;
}

const READY_MS = 10_000;

/**
 * Makes an interface in each namespace and joins the two. They have no addresses yet and are down.
 * @throws Error when they cannot be made
 */
export const joinEnds = (a: CableEnd, b: CableEnd, roundTripMs: number): Promise<Cable> =>
  roundTripMs === 0 ? vethPair(a, b) : longCable(a, b, roundTripMs);

async function vethPair(a: CableEnd, b: CableEnd): Promise<Cable> {
  const peer = ["type", "veth", "peer", "name", b.interfaceName, "netns", b.namespace];
  await run(["ip", "-n", a.namespace, "link", "add", a.interfaceName, ...peer]);
  return { remove: async () => {} };
}

async function longCable(a: CableEnd, b: CableEnd, roundTripMs: number): Promise<Cable> {
  const folder = mkdtempSync(join(tmpdir(), "ferry-cable-"));
  const program = join(folder, "delay");
  try {
    execFileSync("gcc", ["-O2", "-o", program, join(packageRoot(), "test", "support", "delay.c")], { stdio: "pipe" });
    const ends = [a, b].flatMap(({ namespace, interfaceName }) => [namespace, interfaceName]);
    // the program ends with its standard input, and so also with this process
    const child = spawn(program, [...ends, `${Math.round(roundTripMs * 500)}`], { stdio: ["pipe", "pipe", "inherit"] });
    const ended = once(child, "exit");
    const failed = ended.then(([code]) => {
      throw new Error(`The delayed cable ended with ${code}`);
    });
    failed.catch(() => undefined);
    await bounded(Promise.race([once(child.stdout, "data"), failed]), READY_MS, "the delayed cable");
    return {
      remove: async () => {
        child.stdin.end();
        await bounded(ended, READY_MS, "the end of the delayed cable");
      },
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
