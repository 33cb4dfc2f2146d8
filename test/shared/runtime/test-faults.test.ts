/** Tests the faults that a test asks for by name. */
import t from "tap";
import { createLogger } from "../../../shared/runtime/log/log.ts";
import { isFaultName, TestFaults } from "../../../shared/runtime/test-faults.ts";

t.test("a state is held once, until SIGUSR2 comes", async (t) => {
  const faults = new TestFaults(["hold-at=granting"]);
  const log = createLogger("test", "silent");
  await faults.at("copying", log);
  let goesOn = false;
  const held = faults.at("granting", log).then(() => {
    goesOn = true;
  });
  await new Promise(setImmediate);
  t.notOk(goesOn);
  process.emit("SIGUSR2", "SIGUSR2");
  await held;
  await faults.at("granting", log);
});

t.test("a name that no fault has is refused", async (t) => {
  t.ok(isFaultName("corrupt-page") && isFaultName("hold-at=inDoubt"));
  for (const name of ["", "hold-at=", "hold-at=a b", "corrupt"]) t.notOk(isFaultName(name), name);
});
