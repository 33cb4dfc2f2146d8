/**
 * Offers guests that cannot be started at the destination: each is refused by name before anything at the source is
 * touched, the refusal has what QEMU said, and no QEMU is left behind. A command that is a program around QEMU works if
 * the program waits for QEMU.
 */
import { join } from "node:path";
import t from "tap";
import { decodeDestinationRecord } from "../../shared/protocol/record-decoding.ts";
import type { GuestView } from "../../shared/protocol/report.ts";
import { Journal } from "../../shared/runtime/journal/journal.ts";
import { assertOneGuest } from "../support/after-migration.ts";
import { ferryJson, migrate, requireMoved, slowLink, startMigrate } from "../support/ferry-json.ts";
import { type GuestOptions, guestFiles } from "../support/guest.ts";
import { IDLE } from "../support/pair.ts";
import { define, refused } from "../support/refused.ts";
import { EXECUTES, openWrapped, wrap } from "../support/wrapped-guest.ts";

t.setTimeout(300_000);
const NAME = "starts";
const QEMU = "qemu-system-x86_64";
const GUEST: GuestOptions = { name: NAME, memoryMiB: 256, workload: IDLE };
const WAITS = `${QEMU} "$@"`;

t.test("a guest that does not start at the destination is refused, and goes on at the source", async (t) => {
  const pair = await openWrapped(t, GUEST);
  const { rig, a, b, definition } = pair;

  await t.test("a command that ends while its QEMU goes on is refused", async (t) => {
    wrap(rig.b, `${QEMU} "$@" &`);
    t.match(await refused(t, pair, ["qemu-start"]), /starts QEMU at the destination and leaves it.*-daemonize/);
  });

  await t.test("a QEMU that ends at its start is refused with the reason on its last line", async (t) => {
    wrap(rig.b, `exec ${QEMU} "$@" -virtfs local,path=/nowhere/at/all,mount_tag=m,security_model=none`);
    t.match(await refused(t, pair, ["qemu-start"]), /\/nowhere\/at\/all/);
  });

  await t.test("a destination's definition may not have options with which QEMU detaches or waits", async (t) => {
    const extra = ["-daemonize", "-serial", "unix:{runtime}/x.serial,server"];
    define(rig.b, { ...definition, command: [...definition.command, ...extra] });
    t.match(await refused(t, pair, ["configuration"]), /"ferry guests" at the source agent of that host/);
    const { answer } = await ferryJson<GuestView>(rig, b, ["guests"]);
    const detail = /not have -daemonize.*-serial .*x\.serial,server, with which QEMU/;
    t.match(answer, { name: NAME, state: "unreadable", detail });
    define(rig.b, definition);
  });

  await t.test("a definition at the source with such an option names no guest that could be moved", async (t) => {
    define(rig.a, { ...definition, command: [...definition.command, "-daemonize"] });
    const error = { error: { code: "configuration", message: /-daemonize/ } };
    t.match((await migrate(rig, a, b, NAME)).answer, error);
    t.match((await ferryJson(rig, a, ["plan", NAME, "--no-observe", "--to", b.destinationAddress])).answer, error);
    define(rig.a, definition);
    await assertOneGuest(t, rig, { name: NAME, at: rig.a, beside: [guestFiles(NAME).observer] });
  });

  await t.test("a migration to the address of a source agent fails, and says whose address that is", async (t) => {
    const { code, answer } = await migrate(rig, a, { ...b, destinationAddress: b.sourceAddress }, NAME);
    t.equal(code, 1);
    const error = { code: "peer-unreachable", message: /is a source agent's address/, guestNow: /runs at the source/ };
    t.match(answer, { error });
  });

  await t.test("a QEMU that ends while it receives ends the migration, and the guest goes on", async (t) => {
    wrap(rig.b, EXECUTES);
    const slow = await slowLink(rig, 2e7);
    const run = await startMigrate(rig, a, b, NAME, slow);
    await run.copying();
    const there = rig.qemus().find(({ command }) => command.includes(rig.b.runtimeDirectory));
    if (there === undefined) throw new Error("there is no QEMU at the destination");
    process.kill(there.pid, "SIGTERM");
    const { answer } = await run.end();
    const error = { message: /QEMU.*ended.*terminating on signal 15/s, guestNow: "the guest runs at the source" };
    t.match(answer, { status: "failed", error });
    await assertOneGuest(t, rig, { name: NAME, at: rig.a });
    await rig.network.setRate(1e9);
  });
});

t.test("a guest whose command waits for QEMU moves, and the journal names its QEMU", async (t) => {
  const { rig, a, b } = await openWrapped(t, GUEST);
  wrap(rig.b, WAITS);
  const { id } = requireMoved(await migrate(rig, a, b, NAME));
  await assertOneGuest(t, rig, { name: NAME, at: rig.b });
  const journal = await Journal.open(join(rig.b.stateDirectory, "destination"), decodeDestinationRecord);
  const record = await journal.read(id);
  t.same(
    rig.qemus().map(({ pid }) => pid),
    [record?.qemu?.pid],
    "the journal names QEMU, and not the program that waits for it",
  );
  requireMoved(await migrate(rig, b, a, NAME));
  await assertOneGuest(t, rig, { name: NAME, at: rig.a });
  const postcopy = requireMoved(await migrate(rig, a, b, NAME, ["--strategy", "postcopy"]));
  t.ok(postcopy.result.postcopy !== undefined);
  await assertOneGuest(t, rig, { name: NAME, at: rig.b });
});
