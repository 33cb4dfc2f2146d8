import { MigrationFault } from "../../shared/fault.ts";
import type { OwnershipGrant } from "../../shared/protocol/ownership.ts";
import { within } from "../../shared/runtime/deferred.ts";
import type { Feed } from "../feed.ts";
import { migrationResult } from "../migration-result.ts";
import type { GrantAnswer } from "../peer-inbox.ts";
import { GUEST_IN_DOUBT, type SourceContext } from "../source-context.ts";
import type { State } from "../source-state.ts";
import { release } from "./release.ts";

const COMPLETES_WITHIN_MS = 10_000;
const ANSWERS_WITHIN_MS = 30_000;
/** Counts the grants of a migration; recovery may have to repeat one. */
const FIRST_EPOCH = 1;

/**
 * The hand-over (DESIGN 6): SHUT, until QEMU can never run the guest by itself again; the grant into the journal,
 * and only then to the destination.
 */
export async function grant(
  state: State<"granting">,
  cx: SourceContext,
): Promise<State<"released"> | State<"inDoubt"> | State<"keeping">> {
  const { feed, times, reason } = state;
  await retireQemu(feed);
  const ownership: OwnershipGrant = { token: Buffer.from(cx.token).toString("hex"), epoch: FIRST_EPOCH };
  const startedAtMs = cx.report.view().startedAtMs;
  await cx.journal.write(cx.id, {
    kind: "granted",
    guest: cx.call.guest,
    destination: cx.call.to,
    startedAtMs,
    grant: ownership,
  });
  feed.inbox.grantSent();
  feed.channel.send({ kind: "grant", token: cx.token, epoch: FIRST_EPOCH });
  let answer: GrantAnswer;
  try {
    answer = await within(
      Promise.race([feed.inbox.grantAnswer.promise, channelLost(feed)]),
      ANSWERS_WITHIN_MS,
      () => new MigrationFault("timeout", `The destination did not answer the grant within ${ANSWERS_WITHIN_MS} ms`),
    );
    if (answer.kind === "failure") return refused(feed, cx, answer.message, answer.refusedToken);
  } catch (thrown) {
    const fault = new MigrationFault("in-doubt", `The guest was granted to ${cx.call.to}, and no answer came`, {
      cause: thrown,
      guestNow: GUEST_IN_DOUBT,
      advice: `Find out whether the guest runs there, then: ferry resolve ${cx.id} --keep source|destination`,
    });
    return { kind: "inDoubt", feed, grant: ownership, fault };
  }
  cx.report.result = migrationResult(cx, { feed, times, running: answer, switchReason: reason });
  await release(feed, cx);
  return { kind: "released" };
}

/** From here on the source QEMU never runs the guest unless it is told to. */
async function retireQemu(feed: Feed): Promise<void> {
  const completed = feed.qmp.waitFor("MIGRATION", (event) => event.data.status === "completed", {
    timeoutMs: COMPLETES_WITHIN_MS,
    signal: feed.signal,
  });
  feed.intake.shut();
  await completed;
  const { status } = await feed.qmp.execute("query-status");
  if (status !== "postmigrate")
    throw new MigrationFault("qemu-failed", `The source QEMU is ${status} after its migration, not postmigrate`);
}

function refused(feed: Feed, cx: SourceContext, message: string, token: Uint8Array): State<"keeping"> {
  if (Buffer.compare(token, cx.token) !== 0)
    throw new MigrationFault("peer-invalid", "The destination refused another grant than its own");
  const fault = new MigrationFault("peer-failed", `The destination refused the guest: ${message}`, {
    role: "destination",
  });
  return { kind: "keeping", fault, undo: { qmp: feed.qmp, channel: feed.channel, feed } };
}

async function channelLost(feed: Feed): Promise<never> {
  const fault = await feed.channel.closed;
  throw (
    fault ?? new MigrationFault("peer-lost", "The destination ended the transfer stream before it answered the grant")
  );
}
