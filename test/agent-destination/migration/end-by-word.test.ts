/**
 * Tests the end of a QEMU that answers no agent, by an operator's word, and which files go with a QEMU that has ended.
 */
import { existsSync, rmSync, writeFileSync } from "node:fs";
import t from "tap";
import { clearFiles } from "../../../agent-destination/migration/clear-files.ts";
import { endUnseen } from "../../../agent-destination/migration/end-by-word.ts";
import { qemuLogPath } from "../../../shared/runtime/guest/guest-log.ts";
import { destinationPhase } from "../../support/destination-cx.ts";

t.test("a QEMU that still does not answer is killed", async (t) => {
  const { qemu, guest, cx } = await destinationPhase(t);
  await endUnseen(guest.process, () => true, cx);
  t.ok(await guest.hasEnded());
  t.same(qemu.said, [], "it is not asked to quit, since it takes no command");
});

t.test("a QEMU that answers again by now is not killed", async (t) => {
  const { qemu, guest, cx } = await destinationPhase(t);
  await t.rejects(
    endUnseen(guest.process, () => false, cx),
    { code: "not-in-doubt", message: /QEMU of 0123456789ab answers the agent again/, advice: /ferry list/ },
  );
  t.ok(qemu.isAlive);
});

t.test("a QEMU that has ended by itself is no fault", async (t) => {
  const { qemu, guest, cx } = await destinationPhase(t);
  await qemu.end();
  await endUnseen(guest.process, () => false, cx);
  t.pass("nothing was refused");
});

t.test("the socket and the log of a QEMU that has ended are removed, and those of another QEMU are not", async (t) => {
  const { qemu, guest, cx } = await destinationPhase(t);
  const log = qemuLogPath("web", guest.definition.directory);
  writeFileSync(log, "its last words");
  await clearFiles("web", cx.config);
  t.same([qemu.path, log].filter(existsSync), [qemu.path, log], "a process listens there, so both are that process's");
  await qemu.end();
  writeFileSync(qemu.path, "");
  await clearFiles("another", cx.config);
  t.ok(existsSync(log), "a guest that is not defined here has no files");
  await clearFiles("web", cx.config);
  t.same([qemu.path, log].filter(existsSync), []);
  rmSync(qemu.path, { force: true });
});
