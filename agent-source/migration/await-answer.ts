/** Waits for a destination that answers at least its pings. */
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
 * Only before the guest is stopped: a destination that hangs holds a place here as one that cannot be reached does, and
 * is given up after the same time. Later the switchover has limits of its own, and behind a grant silence proves
 * nothing.
 * @throws MigrationFault `peer-lost`
 */
export function unlessSilentFor<T>(
  promise: Promise<T>,
  { inbox, channel }: Answering,
  { config }: Pick<SourceContext, "config">,
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
  );
}
