import { processUsage } from "../../shared/runtime/process-usage.ts";
import type { DestinationContext } from "../destination-context.ts";
import type { State } from "../destination-state.ts";

const RESUMES_WITHIN_MS = 10_000;

/** `running` into the journal, then `cont`, then the answer (DESIGN 6). */
export async function own(state: State<"owning">, cx: DestinationContext): Promise<State<"arrived">> {
  const { guest, receiver, grant } = state;
  const grantedAtUs = cx.clock.nowUs();
  await cx.journal.write(cx.offer.migrationId, {
    kind: "running",
    guest: cx.offer.guest.name,
    qemuPid: guest.pid,
    grant,
  });
  const resumed = guest.qmp.waitFor("RESUME", undefined, { timeoutMs: RESUMES_WITHIN_MS });
  resumed.catch(() => undefined);
  await guest.qmp.execute("cont");
  const { timestampUs } = await resumed;
  // the switches between the hosts still send the guest's frames to the source
  guest.qmp
    .execute("announce-self", { initial: 50, max: 550, rounds: 5, step: 100 })
    .catch((thrown: unknown) => cx.log.warn({ thrown }, "announce-self failed"))
    .finally(() => guest.letGo());
  const usage = processUsage();
  receiver.channel.send({
    kind: "running",
    epoch: grant.epoch,
    resumedAtUs: timestampUs,
    grantedAtUs,
    agentCpuSeconds: usage.cpuSeconds - cx.cpuSecondsBefore,
    agentPeakMemoryBytes: usage.peakMemoryBytes,
  });
  receiver.close();
  return { kind: "arrived" };
}
