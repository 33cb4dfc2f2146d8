/** Runs `buf curl` as the README does: as a client that knows of Ferry only what gRPC's reflection tells it. */
import { join } from "node:path";
import { packageRoot } from "../../shared/runtime/package-root.ts";
import { bounded } from "./bounded.ts";
import type { RigProcess } from "./process.ts";
import type { Rig, RigHost } from "./rig.ts";

const CALL_MS = 60_000;

export interface CurlAnswer {
  readonly code: number | null;
  readonly output: string;
  /** The messages of the answer. A call without a stream has one. */
  readonly messages: readonly unknown[];
}

export class BufCurl {
  private readonly rig: Rig;
  private readonly host: RigHost;

  /** @param host the host from which calls are made */
  constructor(rig: Rig, host: RigHost) {
    this.rig = rig;
    this.host = host;
  }

  /** Lists the methods that reflection names, such as "ferry.v1.MigrationService/Migrate", sorted. */
  async methods(address: string): Promise<readonly string[]> {
    const { output } = await this.run(["--list-methods", `http://${address}`]);
    return output
      .split("\n")
      .filter((line) => /^[\w.]+\/\w+$/.test(line))
      .sort();
  }

  call(address: string, method: string, request: object = {}): Promise<CurlAnswer> {
    return this.run(["-d", JSON.stringify(request), `http://${address}/${method}`]);
  }

  /** Starts a call that may last, such as a stream that is watched. */
  start(address: string, method: string, request: object = {}): Promise<RigProcess> {
    return this.spawn(["-d", JSON.stringify(request), `http://${address}/${method}`]);
  }

  private async run(args: readonly string[]): Promise<CurlAnswer> {
    const started = await this.spawn(args);
    const { code } = await bounded(started.ended, CALL_MS, `buf curl ${args.join(" ")}`);
    const output = started.output();
    return { code, output, messages: code === 0 ? parseMessages(output) : [] };
  }

  private spawn(args: readonly string[]): Promise<RigProcess> {
    const buf = join(packageRoot(), "node_modules", ".bin", "buf");
    const flags = ["--protocol", "grpc", "--http2-prior-knowledge"];
    const environment = { BUF_CACHE_DIR: join(this.rig.folder, "buf-cache") };
    return this.rig.spawn(this.host, "buf curl", [buf, "curl", ...flags, ...args], { environment });
  }
}

/** Parses the messages of an answer. A stream is printed as objects one after the other, each over several lines. */
function parseMessages(output: string): unknown[] {
  const texts = output.trim().split(/\n(?=\{)/);
  return texts.filter((text) => text.startsWith("{")).map((text): unknown => JSON.parse(text));
}
