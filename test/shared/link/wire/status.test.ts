/** Tests how faults become gRPC statuses, and come back. */
import { Metadata, type ServiceError, status } from "@grpc/grpc-js";
import fc from "fast-check";
import t from "tap";
import { MigrationFault } from "../../../../shared/fault.ts";
import { fromStatus, streamFault, toStatus } from "../../../../shared/link/wire/status.ts";

const asError = (thrown: unknown): ServiceError => Object.assign(new Error("a call failed"), toStatus(thrown));
const plain = (code: status, details = "text"): ServiceError =>
  Object.assign(new Error("a call failed"), { code, details, metadata: new Metadata() });

t.test("a fault comes back as it was, whatever its words", async (t) => {
  const words = fc.string({ unit: "grapheme", minLength: 1, maxLength: 200 });
  fc.assert(
    fc.property(words, words, words, words, (message, advice, guestNow, reason) => {
      const refusals = [{ code: "free-memory", message: reason }];
      const back = fromStatus(
        asError(new MigrationFault("refused", message, { advice, guestNow, refusals })),
        "internal",
      );
      t.match(back, { code: "refused", message, advice, guestNow, refusals });
    }),
    { numRuns: 50 },
  );
});

t.test("a fault without advice has none afterwards", async (t) => {
  const back = fromStatus(asError(new MigrationFault("deadline", "Too late")), "peer-lost");
  t.same([back.code, back.advice, back.guestNow, back.refusals], ["deadline", undefined, undefined, []]);
});

t.test("an error that is no fault becomes `internal`", async (t) => {
  t.match(toStatus(new TypeError("oops")), { code: status.INTERNAL, details: "oops" });
  t.match(fromStatus(asError("oops"), "peer-lost"), { code: "internal", message: "oops" });
});

t.test("a fault that gRPC could not carry is made to fit", async (t) => {
  const long = "\u20ac".repeat(100_000);
  const refusals = Array.from({ length: 1000 }, () => ({ code: "ram-blocks", message: long }));
  const { details, metadata } = toStatus(
    new MigrationFault("refused", long, { advice: long, guestNow: long, refusals }),
  );
  const header = Object.values(metadata.toHttp2Headers()).join().length + encodeURI(details).length;
  t.ok(header < 65_000, `${header} bytes of trailers`);
  t.ok(fromStatus(Object.assign(plain(status.INTERNAL), { metadata }), "peer-lost").refusals.length > 1);
  const half = toStatus(new MigrationFault("internal", "half \ud83d a pair"));
  t.equal(encodeURI(half.details), "half%20%EF%BF%BD%20a%20pair");
});

t.test("a status that was not made by an agent of Ferry says what it can", async (t) => {
  t.equal(fromStatus(plain(status.UNAVAILABLE), "peer-lost").code, "peer-lost");
  t.equal(fromStatus(plain(status.UNAVAILABLE), "peer-unreachable").code, "peer-unreachable");
  t.equal(fromStatus(plain(status.DEADLINE_EXCEEDED), "peer-lost").code, "timeout");
  t.equal(fromStatus(plain(status.INVALID_ARGUMENT), "peer-lost").code, "invalid-argument");
  t.equal(fromStatus(plain(status.UNIMPLEMENTED), "peer-lost").code, "peer-invalid");
  const strange = plain(status.ABORTED);
  strange.metadata.set("ferry-code", "toString");
  strange.metadata.set("ferry-refusals-bin", Buffer.from("no JSON"));
  t.match(fromStatus(strange, "peer-lost"), { code: "peer-lost", message: "text", refusals: [] });
});

t.test("a stream is ended by the fault that an agent named; a status that something else made is a cut", async (t) => {
  for (const code of Object.values(status).filter((one) => typeof one === "number"))
    if (code !== status.OK) t.equal(streamFault(plain(code)).code, "peer-lost", status[code]);
  t.equal(streamFault(asError(new MigrationFault("refused", "No"))).code, "refused");
  t.equal(streamFault(asError(new MigrationFault("peer-lost", "Try again"))).code, "peer-lost");
  const later = plain(status.ABORTED);
  later.metadata.set("ferry-code", "of-a-later-version");
  t.match(streamFault(later), { code: "peer-failed", message: "text" });
  const large = Object.assign(plain(status.RESOURCE_EXHAUSTED), {
    details: "Received message larger than max (9 vs 8)",
  });
  t.equal(streamFault(large).code, "peer-invalid", "the message would be too large again");
});
