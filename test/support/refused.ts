/** Asserts that a migration is refused by `ferry plan` and by `ferry migrate` alike, and that its guest goes on. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Test } from "tap";
import type { Refusal } from "../../shared/fault.ts";
import type { PlanView } from "../../shared/protocol/plan-view.ts";
import { assertOneGuest } from "./after-migration.ts";
import { ferryJson, migrate } from "./ferry-json.ts";
import { type GuestDefinitionFile, guestFiles } from "./guest.ts";
import type { Pair } from "./pair.ts";
import type { RigHost } from "./rig.ts";

/**
 * Plans and begins a migration, and asserts that both are refused and that the guest has noticed nothing.
 * @param codes the codes of all reasons, sorted
 * @returns the messages of all reasons, joined
 */
export async function refused(
  t: Test,
  { rig, a, b, definition }: Pair,
  codes: readonly string[],
  options: readonly string[] = [],
): Promise<string> {
  const { name } = definition;
  const before = rig.qemus();
  const planned = await ferryJson<PlanView>(rig, a, [
    "plan",
    name,
    "--no-observe",
    "--to",
    b.destinationAddress,
    ...options,
  ]);
  const { code, answer } = await migrate(rig, a, b, name, options);
  t.equal(planned.code, 1, "plan exits with 1");
  t.equal(code, 1, "migrate exits with 1");
  t.equal(planned.answer.accepted, false);
  t.match(answer, { status: "failed", error: { code: "refused", guestNow: /runs at the source/ } });
  const reasons = answer.error?.refusals ?? [];
  t.same(codesOf(reasons), codes, "migrate names all reasons at once");
  t.same(codesOf(planned.answer.refusals), codes, "plan names the same reasons");
  // a QEMU that fails at its start leaves its sockets, and the agent removes only that of its own monitor
  await assertOneGuest(t, rig, { name, at: rig.a, beside: [guestFiles(name).observer] });
  t.same(rig.qemus(), before, "the same QEMU runs");
  return reasons.map(({ message }) => message).join("; ");
}

const codesOf = (reasons: readonly Refusal[]): string[] => reasons.map(({ code }) => code).sort();

/** Writes a host's own definition of a guest, which may differ from that of the other host. */
export const define = (host: RigHost, definition: GuestDefinitionFile): void =>
  writeFileSync(join(host.guestsDirectory, `${definition.name}.json`), JSON.stringify(definition));
