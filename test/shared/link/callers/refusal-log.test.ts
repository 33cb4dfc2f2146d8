/** Tests the log's lines about callers that were refused. */
import t from "tap";
import { MigrationFault } from "../../../../shared/fault.ts";
import { RefusalLog } from "../../../../shared/link/callers/refusal-log.ts";
import { Lines } from "../../../support/tls.ts";

const fault = new MigrationFault("peer-untrusted", "The caller does not speak TLS");

t.test("refusals are logged with the address of the caller, up to a bound", async (t) => {
  const lines = new Lines();
  const refusals = new RefusalLog(lines.log);
  for (let i = 0; i < 1000; i++) refusals.add(fault, `192.0.2.1:${i}`, "/service/Method");
  t.equal(lines.all.length, 5);
  t.match(lines.all[0], { level: "warn", peer: "192.0.2.1:0", call: "/service/Method", code: "peer-untrusted" });
});

t.test("no caller hides the refusals of another, and all callers together do not fill the disk", async (t) => {
  const lines = new Lines();
  const refusals = new RefusalLog(lines.log);
  for (let i = 0; i < 1000; i++) refusals.add(fault, `192.0.2.1:${i}`);
  refusals.add(fault, "192.0.2.2:1");
  t.equal(lines.all.at(-1)?.peer, "192.0.2.2:1");
  for (let i = 0; i < 5000; i++) refusals.add(fault, `2001:db8:0:${i % 1000}::1:1`);
  t.equal(lines.all.length, 5 + 1 + 9 * 5 + 5, "nine more networks have lines of their own, the rest shares five");
});
