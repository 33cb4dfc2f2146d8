/** Tests the translation of operators' calls and of the messages of the transfer stream. */
import fc from "fast-check";
import t from "tap";
import { MigrationFault } from "../../../../shared/fault.ts";
import { destinationService, migrationService, transferService } from "../../../../shared/link/grpc/services.ts";
import { type DomainMethod, methodOf } from "../../../../shared/link/wire/proto-files.ts";
import type { MigrateOptions, MigrationStatus } from "../../../../shared/protocol/report.ts";
import type { DestinationMessage, SourceMessage } from "../../../../shared/protocol/stream-messages.ts";
import { progress, result, view } from "../../../support/cli-fixtures.ts";
import { offer } from "../../../support/link-fixtures.ts";

/** Reads a request with these fields. */
const read = <Request, Response>(method: DomainMethod<Request, Response>, name: string, fields: object) =>
  method.requestDeserialize(methodOf("MigrationService", name).requestSerialize(fields));

const migrate = (options: object) =>
  read(migrationService.Migrate, "Migrate", { guest: "web", to: "host-b:7412", options });

/** Sends a response over the wire, or a request. @returns what is read */
const there = <Request, Response>(method: DomainMethod<Request, Response>, response: Response) =>
  method.responseDeserialize(Buffer.from(method.responseSerialize(response)));
const back = <Request, Response>(method: DomainMethod<Request, Response>, request: Request) =>
  method.requestDeserialize(Buffer.from(method.requestSerialize(request)));

t.test("an option that an operator leaves out has its default", async (t) => {
  const defaults: MigrateOptions = {
    strategy: "auto",
    downtimeTargetMs: 0,
    deadlineMs: 0,
    onDeadline: "cancel",
    bandwidthBytesPerSecond: 0,
    delta: true,
    reorder: true,
    compression: "auto",
    verify: false,
    sharedDisksUnchecked: false,
    robust: false,
  };
  const call = { guest: "web", to: "host-b:7412", options: defaults };
  t.same(migrate({}), call);
  t.same(
    read(migrationService.Migrate, "Migrate", { guest: "web", to: "host-b:7412" }),
    call,
    "the defaults hold without any options too",
  );
  t.same(read(migrationService.Plan, "Plan", { migration: { guest: "web", to: "host-b:7412" } }), {
    migration: call,
    observeMs: 0,
  });
});

t.test("every option arrives as it was given", async (t) => {
  const options: fc.Arbitrary<MigrateOptions> = fc.record({
    strategy: fc.constantFrom("auto" as const, "precopy" as const, "stop-and-copy" as const),
    downtimeTargetMs: fc.nat({ max: 0xffffffff }),
    deadlineMs: fc.maxSafeNat(),
    onDeadline: fc.constantFrom("cancel" as const, "force" as const),
    bandwidthBytesPerSecond: fc.maxSafeNat(),
    delta: fc.boolean(),
    reorder: fc.boolean(),
    compression: fc.oneof(
      fc.constantFrom("auto" as const, "off" as const),
      fc.integer({ min: -50, max: 19 }).filter((level) => level !== 0),
    ),
    verify: fc.boolean(),
    sharedDisksUnchecked: fc.boolean(),
    robust: fc.boolean(),
  });
  fc.assert(
    fc.property(options, (options) => {
      const call = { guest: "web", to: "unix:/run/b.sock", options };
      t.same(back(migrationService.Migrate, call), call);
      const plan = { migration: call, observeMs: 5000 };
      t.same(back(migrationService.Plan, plan), plan);
    }),
    { numRuns: 50 },
  );
});

t.test("a value that an operator may not give is refused, and the allowed values are named", async (t) => {
  for (const [options, allowed] of [
    [{ strategy: "fast" }, /strategy is "fast"; it may be auto, stop-and-copy, precopy, postcopy, hybrid/],
    [{ strategy: "postcopy", verify: true }, /leave out --verify or post-copy/],
    [{ onDeadline: "postcopy", deadlineMs: 1000, verify: true }, /leave out --verify or post-copy/],
    [{ onDeadline: "wait" }, /on_deadline is "wait"; it may be cancel, force, postcopy/],
    [{ compression: "20" }, /compression is "20"; it may be auto, off or a zstd level from -50 to 19/],
    [{ compression: "-51" }, /compression is "-51"/],
    [{ compression: "1.5" }, /compression is "1.5"/],
    [{ compression: "fast" }, /compression is "fast"/],
  ] as const)
    t.match(migrate(options), { code: "invalid-argument", message: allowed });
  t.match(read(migrationService.Migrate, "Migrate", { to: "b:1" }), {
    code: "invalid-argument",
    message: /^guest is ""/,
  });
  t.match(read(migrationService.Migrate, "Migrate", { guest: "web" }), {
    code: "invalid-argument",
    message: /^to is ""/,
  });
  t.match(read(migrationService.Migrate, "Migrate", { guest: "web", to: `${"x".repeat(300)}:7412` }), {
    code: "invalid-argument",
    message: /^to is "x{40}…"; .* of at most 300 characters$/,
  });
  t.match(read(migrationService.ResolveMigration, "ResolveMigration", { id: "m-1", keep: "both" }), {
    code: "invalid-argument",
    message: 'keep is "both"; it may be source or destination',
  });
});

t.test("a view of a migration arrives as it was, in every status, with and without result and error", async (t) => {
  const statuses: readonly MigrationStatus[] = [
    "preparing",
    "copying",
    "switching",
    "granting",
    "moved",
    "failed",
    "cancelled",
    "inDoubt",
    "doubled",
    "undoing",
    "serving",
  ];
  for (const status of statuses) {
    const seen = view({ status });
    t.same(there(migrationService.GetMigration, seen), seen);
  }
  const incoming = view({ source: "unix:/run/ferry/source.sock" });
  t.same(
    there(migrationService.GetMigration, incoming),
    incoming,
    "a migration that comes to the host names its source",
  );
  const { etaSeconds: _, ...endless } = progress({ stalledSeconds: 3 });
  t.same(
    there(migrationService.GetMigration, view({ progress: endless })),
    view({ progress: endless }),
    "no end is in sight",
  );
  const atOnce = view({ progress: progress({ etaSeconds: 0 }) });
  t.same(there(migrationService.GetMigration, atOnce), atOnce, "the end is there");
  const error = {
    code: "refused",
    message: "The destination refused",
    guestNow: "the guest runs at the source",
    advice: "Düse wechseln",
    refusals: [{ code: "memory", message: "8 GiB are free" }],
  };
  const whole = view({ status: "failed", error, result: result({ degradations: ["delta: too slow"] }) });
  t.same(there(migrationService.Migrate, whole), whole);
  t.same(there(migrationService.ListMigrations, [whole, view()]), [whole, view()]);
});

t.test("a status or an answer that is not known is the peer's fault", async (t) => {
  const wire = methodOf("MigrationService", "GetMigration").responseSerialize({
    migration: { status: 99, progress: {} },
  });
  t.match(migrationService.GetMigration.responseDeserialize(wire), {
    code: "peer-invalid",
    message: /status is 99/,
  });
  t.match(destinationService.Handshake.responseDeserialize(Buffer.alloc(0)), { code: "peer-invalid" });
  t.match(transferService.Transfer.requestDeserialize(Buffer.alloc(0)), { code: "peer-invalid" });
  t.match(transferService.Transfer.responseDeserialize(Buffer.alloc(0)), { code: "peer-invalid" });
  t.match(transferService.Transfer.responseDeserialize(Buffer.from([0x0a, 0x05])), { code: "peer-invalid" });
  t.match(transferService.Transfer.requestDeserialize(Buffer.from([0x0a, 0x7f, 0x01])), { code: "peer-invalid" });
});

t.test("every message of the transfer stream arrives as it was sent", async (t) => {
  const token = Buffer.from("secret");
  const fromSource: readonly SourceMessage[] = [
    { kind: "probe", sequence: 1, padding: Buffer.alloc(100) },
    { kind: "layout", blocks: offer.guest.ramBlocks, ramSectionId: 4 },
    { kind: "clockPing", nonce: 2 ** 40, received: 2 ** 33 },
    { kind: "endOfStream", lastSequence: 2 ** 33 },
    { kind: "verifyRequest", start: 2 ** 32, byteLength: 2 ** 20, last: true },
    { kind: "grant", token, epoch: 2, paused: true },
    { kind: "failure", code: "cancelled", message: "Gave up", refusedToken: Buffer.alloc(0) },
  ];
  for (const message of fromSource) t.same(there(transferService.Transfer, message), message, message.kind);
  const fromDestination: readonly DestinationMessage[] = [
    { kind: "hello", migrationId: "m-1", token, attempt: 1, received: 0, generation: 0, restarted: false },
    { kind: "ack", sequence: 9, appliedBytes: 2 ** 41 },
    { kind: "clockReply", nonce: 3, destinationTimeUs: 1.7e15 },
    { kind: "loaded", lastSequence: 9, lastByteAtUs: 1.7e15, loadedAtUs: 1.7e15 + 1 },
    { kind: "pageDigests", start: 0, byteLength: 4096, digests: Buffer.alloc(16, 1), last: false },
    { kind: "running", epoch: 2, resumedAtUs: 1, grantedAtUs: 2, agentCpuSeconds: 0.25, agentPeakMemoryBytes: 2 ** 34 },
    { kind: "failure", code: "qemu-failed", message: "Ended", refusedToken: token },
  ];
  for (const message of fromDestination) t.same(back(transferService.Transfer, message), message, message.kind);
});

t.test("bytes of any kind are a message or the peer's fault, never a throw into the transport", async () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
      for (const read of [
        transferService.Transfer.requestDeserialize,
        transferService.Transfer.responseDeserialize,
        destinationService.Handshake.requestDeserialize,
        migrationService.Migrate.requestDeserialize,
      ]) {
        const got = read(Buffer.from(bytes));
        if (got instanceof MigrationFault && got.code !== "peer-invalid" && got.code !== "invalid-argument")
          return false;
      }
      return true;
    }),
    { numRuns: 1000 },
  );
});

t.test("a hello names its migration in at most as many characters as an offer", async (t) => {
  const { requestSerialize, requestDeserialize } = transferService.Transfer;
  const said = { kind: "hello", migrationId: "x".repeat(65), token: Buffer.alloc(16) } as const;
  const numbers = { attempt: 1, received: 0, generation: 0, restarted: false };
  const read = (migrationId: string): unknown =>
    requestDeserialize(requestSerialize({ ...said, ...numbers, migrationId }));
  t.match(read("x".repeat(64)), { kind: "hello" });
  t.match(read("x".repeat(65)), { code: "peer-invalid", message: /migration id/ });
});
