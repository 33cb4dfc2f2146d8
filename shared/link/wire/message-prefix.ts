/** What stands ahead of each message of a stream (gRPC over HTTP/2): whether it is compressed, and its length. */

/** The length of the prefix, bytes. */
export const PREFIX_BYTES = 5;

/** Writes the prefix of the message that lies in `whole`, behind the room for the prefix, and is not compressed. */
export function putPrefix(whole: Buffer): void {
  whole[0] = 0;
  whole.writeUInt32BE(whole.length - PREFIX_BYTES, 1);
}
