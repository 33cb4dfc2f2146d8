/** Tests the alarm for a guest of which two copies run. */
import t from "tap";
import { alarmText } from "../../cli/alarm.ts";
import { view } from "../support/cli-fixtures.ts";

const error = {
  code: "two-copies",
  message: "web runs at both hosts",
  guestNow: "it runs at both hosts",
  advice: "Stop the one here: it has done less\u001b[2J",
  refusals: [],
};

t.test("the alarm says where the two copies run, and has the agent's word on which one to stop", async (t) => {
  t.equal(
    alarmText([view(), view({ status: "doubled", error })]),
    `!!! web RUNS AT BOTH HOSTS, and both copies write to its disks (migration m-1)
!!! one copy runs at the source (the host of this agent), the other at the destination host-b:7412
!!! FIRST stop one of the two copies. Stop the one here: it has done less?[2J
`,
  );
});

t.test("a destination's alarm names the source, and an alarm has advice where the agent gives none", async (t) => {
  const incoming = view({ status: "doubled", source: "host-a:7411" });
  t.match(
    alarmText([incoming]),
    /at the source host-a:7411, the other at the destination \(the host of this agent\)\n/,
  );
  t.match(alarmText([incoming]), /FIRST stop one of the two copies\. Send the QMP command stop/);
  t.match(alarmText([view({ status: "doubled", error: { ...error, advice: "" } })]), /Send the QMP command stop/);
});

t.test("there is no alarm where every guest runs once", async (t) => {
  t.equal(alarmText([view(), view({ status: "inDoubt" }), view({ status: "moved" })]), "");
});
