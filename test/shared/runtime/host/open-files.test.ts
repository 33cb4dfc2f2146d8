/** Tests the limit of open files: it is checked at an agent's start, and each fault that comes of it names it. */
import { execFile } from "node:child_process";
import { join } from "node:path";
import t from "tap";
import { MigrationFault } from "../../../../shared/fault.ts";
import { STRANGERS_MAX } from "../../../../shared/link/callers/connection-limits.ts";
import { CONNECTIONS_MAX } from "../../../../shared/link/listen/unix-listener.ts";
import { checkOpenFiles, OTHER_CONNECTIONS } from "../../../../shared/runtime/host/open-files.ts";
import { packageRoot } from "../../../../shared/runtime/package-root.ts";
import { folder } from "../../../support/link-fixtures.ts";

const SETTINGS = { migrationsMax: 4, connections: { max: 256 } };

t.test("a limit below what the settings need is reported with what to do", async (t) => {
  await checkOpenFiles(SETTINGS);
  await checkOpenFiles(SETTINGS, 736);
  await t.rejects(checkOpenFiles(SETTINGS, 735), {
    code: "configuration",
    message: /may have 735 files open \(ulimit -n\), and needs 736 for migrations\.max 4/,
    advice: /LimitNOFILE=736/,
  });
  await t.rejects(checkOpenFiles({ ...SETTINGS, migrationsMax: 100 }, 1024), { message: /needs 3040/ });
});

t.test("connections other than those of callers that were let in are counted in full", async (t) => {
  t.equal(OTHER_CONNECTIONS, STRANGERS_MAX + CONNECTIONS_MAX);
});

for (const kind of ["source", "destination"])
  t.test(`ferry-${kind} with too few open files does not start`, async (t) => {
    const directory = folder(t);
    const program = join(packageRoot(), "dist", `agent-${kind}`, "main.js");
    const flags = ["guests-directory", "runtime-directory", "state-directory"].map((flag) => `--${flag}=${directory}`);
    const command = [
      "-c",
      'ulimit -n 128; exec "$@"',
      "sh",
      process.execPath,
      program,
      "--operators-socket=",
      ...flags,
    ];
    const { code, output } = await new Promise<{ code: unknown; output: string }>((resolve) => {
      execFile("/bin/sh", command, { timeout: 60_000 }, (error, _, stderr) =>
        resolve({ code: error?.code, output: stderr }),
      );
    });
    t.match({ code, output }, { code: 2, output: /may have 128 files open.*\n.*LimitNOFILE=736/ });
  });

t.test("a fault that comes of too many open files says so, wherever it was made", async (t) => {
  const cause = Object.assign(new Error("EMFILE: too many open files, open '/x'"), { code: "EMFILE" });
  const advice = /LimitNOFILE/;
  t.match(MigrationFault.from(cause), { code: "internal", message: /EMFILE/, advice });
  const wrapped = new MigrationFault("state-directory", "The journal cannot be written", {
    cause,
    advice: "Make room",
  });
  t.match(wrapped, { advice });
  t.match(new MigrationFault("qemu-failed", "It failed", { cause: wrapped }), { advice });
  const other = Object.assign(new Error("ENOSPC"), { code: "ENOSPC" });
  t.equal(new MigrationFault("state-directory", "No", { cause: other, advice: "Make room" }).advice, "Make room");
});
