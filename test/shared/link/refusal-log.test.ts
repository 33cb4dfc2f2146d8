import t from "tap";
import { MigrationFault } from "../../../shared/fault.ts";
import { RefusalLog } from "../../../shared/link/refusal-log.ts";
import { Lines } from "../../support/tls.ts";

t.test("refusals are logged with their address, and not without bound", async (t) => {
  const lines = new Lines();
  const refusals = new RefusalLog(lines.log);
  const fault = new MigrationFault("peer-untrusted", "The caller does not speak TLS");
  for (let i = 0; i < 1000; i++) refusals.add(fault, `192.0.2.1:${i}`, "/service/Method");
  t.equal(lines.all.length, 20);
  t.match(lines.all[0], { level: "warn", peer: "192.0.2.1:0", call: "/service/Method", code: "peer-untrusted" });
});
