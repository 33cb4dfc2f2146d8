/** A migration that is refused: by `ferry plan` and `ferry migrate` alike, and the guest has noticed nothing. */
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

/** @returns all messages */
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
  t.equal(code, 1, "and so does migrate");
  t.equal(planned.answer.accepted, false);
  t.match(answer, { status: "failed", error: { code: "refused", guestNow: /runs at the source/ } });
  const reasons = answer.error?.refusals ?? [];
  t.same(codesOf(reasons), codes, "all reasons at once");
  t.same(codesOf(planned.answer.refusals), codes, "the check before gives the same");
  // a QEMU that fails at its start removes no socket; the agent knows only of its own monitor's
  await assertOneGuest(t, rig, { name, at: rig.a, beside: [guestFiles(name).observer] });
  t.same(rig.qemus(), before, "the same QEMU runs");
  return reasons.map(({ message }) => message).join("; ");
}

const codesOf = (reasons: readonly Refusal[]): string[] => reasons.map(({ code }) => code).sort();

/** One host's own definition of a guest. */
export const define = (host: RigHost, definition: GuestDefinitionFile): void =>
  writeFileSync(join(host.guestsDirectory, `${definition.name}.json`), JSON.stringify(definition));
