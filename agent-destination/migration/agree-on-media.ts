/** Judges an offer by a QEMU that was started for it, and gives this QEMU the media that the guest has. */
import { type Agreement, agree, type DestinationFacts } from "../../shared/protocol/handshake.ts";
import type { GuestDisks, Offer } from "../../shared/protocol/messages.ts";
import type { FoundDisks } from "../../shared/qemu/inspect/guest-disks.ts";
import type { DestinationConfig } from "../../shared/runtime/config/config.ts";
import type { Logger } from "../../shared/runtime/log/log.ts";
import { changeMedia, planMedia } from "../guest/guest-media.ts";
import type { GuestProcess } from "../guest/guest-process.ts";

export interface Judged {
  readonly agreement: Agreement;
  /** The disks that the QEMU has after the judgement. Undefined where no QEMU was started, and where it has ended. */
  readonly disks: FoundDisks | undefined;
}

/**
 * Judges an offer. QEMU's media are changed only where there is no other reason against the offer, and where every
 * medium of the guest may be put in.
 * @param facts everything else that was found out about the QEMU and this host; the disks in it are not used
 * @param disks the disks of the QEMU, with the media that the definition names
 */
export async function agreeOnMedia(
  offer: Offer,
  facts: Omit<DestinationFacts, "guest"> & { readonly guest: NonNullable<DestinationFacts["guest"]> },
  disks: FoundDisks,
  guest: Pick<GuestProcess, "qmp" | "process">,
  { config, log }: { readonly config: Pick<DestinationConfig, "mediaDirectories">; readonly log: Logger },
): Promise<Judged> {
  const judge = (own: FoundDisks, more: DestinationFacts["refusals"], leftOut: ReadonlySet<string>): Agreement =>
    agree(
      { ...offer, guest: { ...offer.guest, ...without(offer.guest.disks, leftOut) } },
      { ...facts, guest: { ...facts.guest, ...without(own, leftOut) }, refusals: [...facts.refusals, ...more] },
    );
  const plan = await planMedia(disks, offer.guest.disks, config.mediaDirectories);
  if (plan.reasons.length > 0)
    log.warn({ media: plan.reasons }, "media of the guest may not be put into drives on this host");
  const agreement = judge(disks, plan.refusals, plan.drives);
  if (agreement.kind === "refusals" || plan.changes.length === 0) return { agreement, disks };
  const { qmp, process } = guest;
  const changed = await changeMedia({ qmp, pid: process.pid }, plan, disks, offer.dryRun);
  return { agreement: judge(changed.disks, changed.refusals, new Set()), disks: changed.disks };
}

/** Leaves drives out of the disks of a guest. */
const without = (disks: GuestDisks | undefined, names: ReadonlySet<string>): { readonly disks?: GuestDisks } =>
  disks === undefined ? {} : { disks: { ...disks, drives: disks.drives.filter(({ name }) => !names.has(name)) } };
