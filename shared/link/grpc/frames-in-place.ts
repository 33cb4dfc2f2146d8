/**
 * Has grpc-js send frames from the memory in which they lie. By itself grpc-js copies each message into a new Buffer,
 * behind the five bytes that hold its length. This copy is the larger part of what it costs to send a frame
 * (docs/results/path.md). A frame has room for these five bytes ahead of it.
 *
 * grpc-js has no interface for this. The innermost object of a call has a method that makes the bytes of a message
 * (server-interceptors.js, BaseServerInterceptingCall.serializeMessage), and this file replaces that method. Order,
 * limits, callbacks and errors stay with grpc-js. A grpc-js without such a method sends everything in its own way.
 */
import type { SourceMessage } from "../../protocol/stream-messages.ts";
import { prefixedFrame } from "../wire/frame-wire.ts";

/** How many objects of a call are searched for the method at most, from the handler's stream inwards. */
const LAYERS_MAX = 16;

interface Serializing {
  serializeMessage(message: SourceMessage): Buffer;
}

/**
 * Has the frames of a call sent in place. From then on the memory of a frame that is written must stay as it is until
 * the callback of write() is called.
 * @param call the stream that grpc-js gave to the handler
 * @returns false if grpc-js does not allow it
 */
export function sendFramesInPlace(call: object): boolean {
  const innermost = serializingOf(call);
  if (innermost === undefined) return false;
  const copied = innermost.serializeMessage.bind(innermost);
  innermost.serializeMessage = (message) =>
    (message.kind === "frame" ? prefixedFrame(message) : undefined) ?? copied(message);
  return true;
}

function serializingOf(call: object): Serializing | undefined {
  let layer: unknown = Reflect.get(call, "call");
  for (let depth = 0; depth < LAYERS_MAX && typeof layer === "object" && layer !== null; depth++) {
    if (isSerializing(layer)) return layer;
    layer = Reflect.get(layer, "nextCall");
  }
  return undefined;
}

const isSerializing = (layer: object): layer is Serializing =>
  typeof Reflect.get(layer, "serializeMessage") === "function";
