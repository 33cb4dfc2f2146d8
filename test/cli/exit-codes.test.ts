/** Tests the exit codes of `ferry`. */
import t from "tap";
import { exitCodeOf, exitCodeOfFault } from "../../cli/exit-codes.ts";
import { MigrationFault } from "../../shared/fault.ts";

t.test("each end of a migration has its exit code", async (t) => {
  t.equal(exitCodeOf("moved"), 0);
  t.equal(exitCodeOf("failed"), 1);
  t.equal(exitCodeOf("cancelled"), 3);
  t.equal(exitCodeOf("inDoubt"), 4);
  t.equal(exitCodeOf("doubled"), 5);
  for (const status of ["preparing", "copying", "switching", "granting"] as const) t.equal(exitCodeOf(status), 1);
});

t.test("each fault has its exit code", async (t) => {
  const code = (fault: ConstructorParameters<typeof MigrationFault>[0]) =>
    exitCodeOfFault(new MigrationFault(fault, ""));
  t.equal(code("invalid-argument"), 2);
  t.equal(code("cancelled"), 3);
  t.equal(code("in-doubt"), 4);
  t.equal(code("two-copies"), 5);
  for (const fault of ["peer-unreachable", "guest-unknown", "internal", "refused"] as const) t.equal(code(fault), 1);
});
