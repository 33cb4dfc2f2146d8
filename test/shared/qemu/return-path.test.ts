import t from "tap";
import { encodePong, encodeShut, encodeSwitchoverAck } from "../../../shared/qemu/return-path.ts";

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

t.test("messages have type, length and payload", async (t) => {
  t.equal(hex(encodeShut(0)), "0001000400000000");
  t.equal(hex(encodeShut(1)), "0001000400000001");
  t.equal(hex(encodePong(0xdeadbeef)), "00020004deadbeef");
  t.equal(hex(encodeSwitchoverAck()), "00070000");
});
