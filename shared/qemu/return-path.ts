/** Messages on the return path, destination to source: u16 type, u16 length, payload (migration/migration.c, mig_rp_message_type). */

const SHUT = 1;
const PONG = 2;
const SWITCHOVER_ACK = 7;

/** The destination is done: 0 without error, which completes the source; anything else fails its migration. */
export const encodeShut = (error: number): Uint8Array => withWord(SHUT, error);
export const encodePong = (value: number): Uint8Array => withWord(PONG, value);
/** The source may stop its guest when its limits allow it (8.1 and later, capability switchover-ack). */
export const encodeSwitchoverAck = (): Uint8Array => Uint8Array.of(0, SWITCHOVER_ACK, 0, 0);

function withWord(type: number, value: number): Uint8Array {
  const message = new Uint8Array(8);
  const view = new DataView(message.buffer);
  view.setUint16(0, type);
  view.setUint16(2, 4);
  view.setUint32(4, value);
  return message;
}
