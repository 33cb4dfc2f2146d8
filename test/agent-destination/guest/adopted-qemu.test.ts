/** Tests which process an agent that starts again takes for the QEMU that it has started and not written down. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import t, { type Test } from "tap";
import { findUnwritten } from "../../../agent-destination/guest/adopted-qemu.ts";
import type { DestinationRecord } from "../../../shared/protocol/ownership.ts";
import { Journal } from "../../../shared/runtime/journal/journal.ts";
import { asNobody, NOBODY } from "../../support/as-nobody.ts";
import { eventually } from "../../support/bounded.ts";
import { folder } from "../../support/link-fixtures.ts";
import { atTeardown } from "../../support/teardown.ts";

/** Makes a definition whose command no other process of this host has. */
function definition(t: Test) {
  const directory = folder(t);
  const command = ["perl", "-e", "sleep 600", `unix:${directory}/web.qmp`] as [string, ...string[]];
  return { name: "web", qmp: join(directory, "web.qmp"), directory, command, digest: "" };
}

/** Starts the command of a definition as a destination agent does, or somebody who pretends to. */
async function start(t: Test, [program, ...rest]: readonly [string, ...string[]], uid?: number): Promise<ChildProcess> {
  const waiting = [...rest, "-S", "-incoming", "defer"];
  const child = spawn(program, waiting, { stdio: "ignore", cwd: "/", ...(uid === undefined ? {} : { uid, gid: uid }) });
  const forget = atTeardown(() => child.kill("SIGKILL"));
  t.teardown(() => {
    forget();
    child.kill("SIGKILL");
  });
  await once(child, "spawn");
  // between fork and exec the process still has the command of this one
  const isThere = (): true | undefined =>
    readFileSync(`/proc/${child.pid}/cmdline`, "utf8").includes("\0defer\0") || undefined;
  await eventually(isThere, { timeoutMs: 20_000, what: "the command of the process" });
  return child;
}

const journalOf = (t: Test): Promise<Journal<DestinationRecord>> =>
  Journal.open(folder(t), (record) => record as DestinationRecord);

t.test("a process of the agent's own user with the command of the guest is found", async (t) => {
  const given = definition(t);
  const journal = await journalOf(t);
  t.equal(await findUnwritten(given, journal), undefined);
  const own = await start(t, given.command);
  t.equal((await findUnwritten(given, journal))?.pid, own.pid);
});

t.test("a process of another user is not taken for it, whatever its command says", { ...asNobody }, async (t) => {
  const given = definition(t);
  const journal = await journalOf(t);
  await start(t, given.command, NOBODY);
  t.equal(await findUnwritten(given, journal), undefined);
  const own = await start(t, given.command);
  t.equal((await findUnwritten(given, journal))?.pid, own.pid);
});
