/**
 * The mark of a refusal: an object in the QEMU whose guest is refused. The object ends with this copy of the guest, and
 * is not needed for longer. It needs no disk: a full or hanging disk must not keep a refusal from being said
 * (docs/design/ownership.md#refusals-and-copies-that-are-kept).
 */
import type { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";

/** The id of the object. */
const MARK = "ferry-refused";
/** How long QEMU may take to answer, milliseconds. */
const ANSWERS_WITHIN_MS = 2000;

/**
 * Puts the mark into QEMU, if it is not there yet.
 * @throws MigrationFault when QEMU does not take it
 */
export async function markRefused(qmp: QmpClient): Promise<void> {
  if (await isMarkedRefused(qmp)) return;
  const mark = { "qom-type": "secret", id: MARK, data: "no agent starts this guest" };
  await qmp.execute("object-add", mark, { timeoutMs: ANSWERS_WITHIN_MS });
}

/**
 * Tells whether the mark is in QEMU.
 * @throws MigrationFault when QEMU does not answer
 */
export async function isMarkedRefused(qmp: QmpClient): Promise<boolean> {
  const objects = await qmp.execute("qom-list", { path: "/objects" }, { timeoutMs: ANSWERS_WITHIN_MS });
  return objects.some(({ name }) => name === MARK);
}

/**
 * Removes the mark, because an operator has claimed the guest.
 * @throws MigrationFault when QEMU does not answer
 */
export async function unmarkRefused(qmp: QmpClient): Promise<void> {
  if (await isMarkedRefused(qmp)) await qmp.execute("object-del", { id: MARK }, { timeoutMs: ANSWERS_WITHIN_MS });
}
