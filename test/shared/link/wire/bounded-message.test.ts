/** Tests that a peer cannot make an agent build more objects of one message than any honest message has. */
import t from "tap";
import { MigrationFault } from "../../../../shared/fault.ts";
import { destinationService, migrationService } from "../../../../shared/link/grpc/services.ts";
import { checkEntries } from "../../../../shared/link/wire/bounded-message.ts";
import { offer } from "../../../support/link-fixtures.ts";

/** A field of a message that is `body` long. */
const field = (number: number, body: Uint8Array): Buffer => {
  const length: number[] = [];
  for (let left = body.length; ; left >>>= 7) {
    length.push(left > 127 ? (left & 127) | 128 : left);
    if (left <= 127) break;
  }
  return Buffer.concat([Buffer.of((number << 3) | 2, ...length), body]);
};
const repeated = (one: Uint8Array, times: number): Buffer => Buffer.concat(Array.from({ length: times }, () => one));
/** HandshakeAnswer.refusals, in each of which nothing is said. */
const answer = (times: number): Buffer => field(2, repeated(field(1, Buffer.alloc(0)), times));

t.test("an answer of very many empty entries is refused before an object is made of each", async (t) => {
  const { responseDeserialize } = destinationService.Handshake;
  t.match(responseDeserialize(answer(32_766)), { kind: "refusals" });
  t.match(responseDeserialize(answer(100_000)), {
    code: "peer-invalid",
    message: "The peer's message has more than 32768 entries",
  });
});

t.test("entries count at every depth, and a message that is cut off is the peer's fault", async (t) => {
  const { requestSerialize, requestDeserialize } = destinationService.Handshake;
  const bytes = requestSerialize({ ...offer, guest: { ...offer.guest, deviceSettings: Array(9000).fill("a: b = c") } });
  t.match(requestDeserialize(bytes), { guest: { deviceSettings: { length: 9000 } } });
  for (const cut of [5000, bytes.length - 1]) {
    const cutOff = requestDeserialize(bytes.subarray(0, cut));
    t.ok(cutOff instanceof MigrationFault && cutOff.code === "peer-invalid");
  }
  const memory = Array.from({ length: 40_000 }, () => ({
    format: "raw",
    file: "",
    byteLength: 0,
    writable: false,
    inode: "",
    baseName: "",
  }));
  const disks = { boot: "", drives: [], memory };
  const deep = requestSerialize({ ...offer, guest: { ...offer.guest, disks } });
  t.match(requestDeserialize(deep), { code: "peer-invalid" });
});

t.test("entries are counted whatever wire type a message gives a field, as protobufjs decodes them", async (t) => {
  const { requestDeserialize, responseDeserialize } = destinationService.Handshake;
  // HandshakeAnswer.refusals as a fixed number of eight bytes, and then a field that is not known
  const hidden = Buffer.concat([Buffer.of((2 << 3) | 1), answer(100_000)]);
  t.match(responseDeserialize(hidden), { code: "peer-invalid", message: /field refusals in another form/ });
  // Offer.protocol_versions, packed into one field
  const packed = field(1, Buffer.alloc(200_000, 1));
  t.match(requestDeserialize(packed), { code: "peer-invalid", message: /more than 32768 entries/ });
  t.doesNotThrow(() => checkEntries(field(1, Buffer.alloc(10_000, 1)), "HandshakeRequest"));
});

t.test("a long text is one entry, and an operator's agent may answer at any length", async (t) => {
  t.doesNotThrow(() => checkEntries(field(2, Buffer.alloc(200_000)), "Refusal"));
  const views = migrationService.ListMigrations.responseSerialize([]);
  t.same(migrationService.ListMigrations.responseDeserialize(views), []);
});
