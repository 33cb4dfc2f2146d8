/** A source agent that is only dialled: it takes note of what a destination says first, and welcomes the stream. */
import type { Test } from "tap";
import { serveSource } from "../../shared/link/grpc/grpc-server.ts";
import type { SourceChannel } from "../../shared/link/link.ts";
import type { DestinationMessage, Hello } from "../../shared/protocol/stream-messages.ts";
import { eventually } from "./bounded.ts";
import { SERVE, sourceService } from "./link.ts";

export class DialledSource {
  readonly address: string;
  /** The first message of each connection. */
  readonly hellos: Hello[] = [];
  /** The messages that followed. */
  readonly said: DestinationMessage[] = [];
  private readonly channels: SourceChannel[] = [];

  static async serve(t: Test): Promise<DialledSource> {
    let source: DialledSource | undefined;
    const listener = await serveSource(
      sourceService({ acceptTransfer: (hello, channel) => source?.accept(hello, channel) }),
      SERVE,
    );
    source = new DialledSource(listener.address);
    t.teardown(() => listener.close(0));
    return source;
  }

  private constructor(address: string) {
    this.address = address;
  }

  /** Waits until a destination has dialled. @returns what it said first */
  untilDialled(): Promise<Hello> {
    return eventually(() => this.hellos[0], { timeoutMs: 20_000, what: "a destination that dials" });
  }

  /** Waits for the next message of a kind. */
  untilSaid<K extends DestinationMessage["kind"]>(kind: K): Promise<DestinationMessage> {
    const find = (): DestinationMessage | undefined => this.said.find((message) => message.kind === kind);
    return eventually(find, { timeoutMs: 20_000, what: `the message ${kind}` });
  }

  private accept(hello: Hello, channel: SourceChannel): void {
    this.hellos.push(hello);
    this.channels.push(channel);
    let received = 0;
    channel.receive((message) => {
      this.said.push(message);
      // a destination keeps what its source has not received, and stays until the source says that it has
      if (message.kind !== "ack" && message.kind !== "clockReply")
        channel.send({ kind: "clockPing", nonce: 0, received: ++received });
    });
    channel.send({ kind: "welcome", received: 0, generation: 0 });
  }
}
