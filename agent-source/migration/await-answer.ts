/** Bounds a wait for a destination that hangs: one that does not even answer pings. */
import { MigrationFault } from "../../shared/fault.ts";
import { unlessSilent } from "../../shared/link/resume/peer-silence.ts";
import type { ResumingSource } from "../../shared/link/resume/resuming-source.ts";
import type { PeerInbox } from "../link/peer-inbox.ts";
import type { SourceContext } from "./source-context.ts";

interface Answering {
  readonly inbox: Pick<PeerInbox, "heard">;
  readonly channel: Pick<ResumingSource, "isCut">;
}

/**
 * Waits for a promise, unless the destination says nothing for `link.giveUpAfter` although the link to it is up.
 *
 * This function is for waits before the guest is stopped. A migration whose destination hangs occupies one of the
 * places for migrations on this host (migrations.max), so it is given up after the same time as one whose destination
 * cannot be reached. Later the switchover has limits of its own, and after a grant silence proves nothing.
 * @throws MigrationFault `peer-lost`
 */
export function unlessSilentFor<T>(
  promise: Promise<T>,
  { inbox, channel }: Answering,
  { config, clock }: Pick<SourceContext, "config" | "clock">,
): Promise<T> {
  const { giveUpAfterMs } = config.link;
  const peer = {
    get heard() {
      return inbox.heard;
    },
    get isRead() {
      return !channel.isCut;
    },
  };
  return unlessSilent(
    promise,
    peer,
    giveUpAfterMs,
    () =>
      new MigrationFault(
        "peer-lost",
        `The destination has said nothing for ${giveUpAfterMs} ms (link.giveUpAfter), although the link to it is up`,
        {
          role: "destination",
          advice: "See the destination agent's log, and whether that agent or its QEMU hangs; then migrate again",
        },
      ),
    clock,
  );
}
