/**
 * Tells whether a QEMU can go into post-copy. When the capability postcopy-ram is switched on in a QEMU that waits with
 * -incoming, QEMU tries out what it needs as a destination: userfaultfd, and memory that can be registered there
 * (migration/options.c migrate_caps_check, migration/postcopy-ram.c postcopy_ram_supported_by_host; 0.4 ms with
 * 10.0.2). In a source QEMU the capability can be switched on whatever the host can do.
 */
import { MigrationFault, type Refusal } from "../../fault.ts";
import type { QmpClient } from "../qmp/qmp-client.ts";

const CAPABILITY = "postcopy-ram";
const CODE = "postcopy-unavailable";
/**
 * The first major version of QEMU that syncs its dirty bitmap in every turn of its loop while it copies with post-copy
 * enabled. Pages wait in the bitmap then, and an emulating QEMU (TCG) loses writes to them
 * (docs/design/post-copy.md#which-guests-and-hosts-can-do-post-copy). This was found in 11.1, and 10.2 does not do it.
 */
const SYNCS_WITH_PAGES_WAITING = 11;

/** Finds what a source QEMU says of itself that speaks against post-copy. Nothing is changed. */
export async function refusePostcopy(qmp: QmpClient): Promise<readonly Refusal[]> {
  const refusals: Refusal[] = [];
  const capabilities = await qmp.execute("query-migrate-capabilities");
  if (!capabilities.some(({ capability }) => capability === CAPABILITY))
    refusals.push({
      code: CODE,
      message: `The source's QEMU has no capability ${CAPABILITY}; start the guest with another QEMU, or choose precopy`,
    });
  refusals.push(...(await refuseEmulation(qmp)));
  for (const id of await sharedFiles(qmp))
    refusals.push({
      code: "postcopy-shared-memory",
      message: `Memory backend ${id} is a file that others may share (share=on), and they would not wait for pages that are missing; make it share=off, or choose precopy`,
    });
  return refusals;
}

async function refuseEmulation(qmp: QmpClient): Promise<Refusal[]> {
  const { major, minor, micro } = qmp.greeting.version;
  if (major < SYNCS_WITH_PAGES_WAITING || (await qmp.execute("query-kvm")).enabled) return [];
  const version = `QEMU ${major}.${minor}.${micro}`;
  const message = `${version} emulates this guest (TCG), and loses writes of an emulated guest in post-copy; choose precopy, or start the guest with KVM or with QEMU 10.2 or earlier`;
  return [{ code: "postcopy-emulated", message }];
}

/**
 * Finds the memory backends that are named files and shared. Backends of memfd and shm are shared only with processes
 * to which QEMU gives them, and QEMU itself asks these processes whether they can take part in post-copy.
 */
async function sharedFiles(qmp: QmpClient): Promise<readonly string[]> {
  const backends = await qmp.execute("query-memdev");
  const shared = new Set(backends.filter(({ share }) => share === true).map(({ id }) => id));
  if (shared.size === 0) return [];
  const objects = await qmp.execute("qom-list", { path: "/objects" });
  return objects
    .filter(({ name, type }) => type === "child<memory-backend-file>" && shared.has(name))
    .map(({ name }) => name);
}

/**
 * Tries post-copy out with a QEMU that waits for a migration, and leaves that QEMU without the capability.
 * @returns the reason why it cannot go into post-copy; undefined when it can
 * @throws MigrationFault `qmp-…` when QEMU does not answer
 */
export async function whyNoPostcopy(qmp: QmpClient): Promise<Refusal | undefined> {
  const refusal = await tryOut(qmp);
  if (refusal === undefined) await setCapability(qmp, false);
  return refusal;
}

/**
 * Gives the capability to the QEMU of a destination whose contract has post-copy.
 * @throws MigrationFault `qemu-failed` with QEMU's words when that QEMU cannot go into post-copy after all
 */
export async function enablePostcopy(qmp: QmpClient): Promise<void> {
  const refusal = await tryOut(qmp);
  if (refusal === undefined) return;
  throw new MigrationFault("qemu-failed", `${refusal.message}; it was able to when the migration was agreed on`, {
    role: "destination",
    advice: "See what has changed on the destination host, or migrate with precopy",
  });
}

async function tryOut(qmp: QmpClient): Promise<Refusal | undefined> {
  try {
    await setCapability(qmp, true);
    return undefined;
  } catch (thrown) {
    const fault = MigrationFault.from(thrown);
    if (fault.code !== "qmp-command") throw fault;
    return { code: CODE, message: `The destination's QEMU cannot go into post-copy: ${explain(fault.message)}` };
  }
}

async function setCapability(qmp: QmpClient, state: boolean): Promise<void> {
  await qmp.execute("migrate-set-capabilities", { capabilities: [{ capability: CAPABILITY, state }] });
}

/** Shortens QEMU's message to the reason, and adds what to do about a reason that is known. */
function explain(message: string): string {
  const words = message.replace(/^QEMU refused [\w-]+: |Postcopy is not supported: | \(GenericError\)$/g, "");
  const advice = ADVICE.find(([pattern]) => pattern.test(words))?.[1];
  return advice === undefined ? words : `${words}; ${advice}`;
}

const ADVICE: readonly (readonly [words: RegExp, advice: string])[] = [
  [
    /userfaultfd/i,
    "let the agent's user open /dev/userfaultfd, or set vm.unprivileged_userfaultfd=1, or give its QEMUs CAP_SYS_PTRACE",
  ],
  [/TMPFS or HUGETLBFS/i, "do not keep the guest's memory in a file, or keep it in a file on tmpfs"],
  [/vhost/i, "use a vhost-user backend that takes part in post-copy"],
];
