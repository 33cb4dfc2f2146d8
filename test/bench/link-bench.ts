/**
 * Measures the pull of pages over gRPC. Frames of 256 KiB go over the loopback from a server process (link-server.ts)
 * to this one, which acknowledges each. The agents' link in clear, the agents' link over mutual TLS, and proto-loader's
 * generated serialisation take turns. The rates count bytes of frames, not of guest memory. CPU time is reported for
 * each side.
 */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Client, credentials } from "@grpc/grpc-js";
import { clientOptions, dialSource } from "../../shared/link/grpc/grpc-link.ts";
import type { LinkSecurity } from "../../shared/link/tls/security.ts";
import { methodOf } from "../../shared/link/wire/proto-files.ts";
import { LIMITS } from "../support/link.ts";
import { security, TestCa } from "../support/tls.ts";
import { FRAME_BYTES } from "./guest-pages.ts";
import { against, type Group, median, type Round, summary, timedAsync } from "./measure.ts";

const GROUP = "link";
const FRAMES = 2048;
const BYTES = FRAMES * FRAME_BYTES;
const ROUNDS = 5;
const limits = { ...LIMITS, receiveWindowBytes: 16 << 20 };

async function pull(address: string, secure?: LinkSecurity): Promise<void> {
  const channel = dialSource(address, { ...limits, ...(secure === undefined ? {} : { security: secure }) });
  let appliedBytes = 0;
  await new Promise<void>((resolve) => {
    channel.receive((message) => {
      if (message.kind === "endOfStream") resolve();
      if (message.kind !== "frame") return;
      appliedBytes += message.body.length;
      channel.send({ kind: "ack", sequence: message.sequence, appliedBytes });
    });
    channel.send({
      kind: "hello",
      migrationId: `${FRAMES}`,
      token: Buffer.from("token"),
      attempt: 1,
      received: 0,
      generation: 0,
      restarted: false,
    });
  });
  channel.close();
  await channel.closed;
  if (appliedBytes !== BYTES) throw new RangeError(`${appliedBytes} bytes of ${BYTES} arrived`);
}

async function pullGenerated(address: string): Promise<void> {
  const client = new Client(address, credentials.createInsecure(), clientOptions(limits));
  const { path, requestSerialize, responseDeserialize } = methodOf("TransferService", "Transfer");
  const call = client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize);
  let appliedBytes = 0;
  await new Promise<void>((resolve, reject) => {
    call.on("error", reject);
    call.on("data", (message: { frame?: { sequence: number; body: Uint8Array } }) => {
      const { frame } = message;
      if (frame === undefined) {
        resolve();
        return;
      }
      appliedBytes += frame.body.length;
      call.write({ ack: { sequence: frame.sequence, appliedBytes } });
    });
    call.write({ hello: { migrationId: `${FRAMES}`, token: Buffer.from("token") } });
  });
  call.end();
  await once(call, "end");
  client.close();
  if (appliedBytes !== BYTES) throw new RangeError(`${appliedBytes} bytes of ${BYTES} arrived`);
}

async function cpuOf(server: ChildProcess): Promise<number> {
  const answer = once(server, "message");
  server.send("cpu");
  const [{ cpu }] = await answer;
  return cpu.user + cpu.system;
}

interface Side {
  readonly rounds: Round[];
  /** CPU time of the server in each round, seconds a GB. */
  readonly server: number[];
}

async function measure(server: ChildProcess, pulls: readonly (() => Promise<void>)[]): Promise<Side[]> {
  const sides = pulls.map((): Side => ({ rounds: [], server: [] }));
  for (let i = 0; i <= ROUNDS; i++)
    for (const [index, one] of pulls.entries()) {
      const before = await cpuOf(server);
      const round = await timedAsync(BYTES, one);
      const serverCpu = ((await cpuOf(server)) - before) * 1000;
      if (i === 0) continue;
      sides[index]?.rounds.push(round);
      sides[index]?.server.push(serverCpu / BYTES);
    }
  return sides;
}

export const linkGroup: Group = {
  name: GROUP,
  async run(report, wanted) {
    const names = [
      "pull, generated serialisation",
      "pull, frames by hand",
      "pull, frames by hand, mutual TLS",
    ] as const;
    if (!names.some(wanted)) return;
    const folder = mkdtempSync(join(tmpdir(), "ferry-bench-"));
    const ca = new TestCa(folder).make("alpha=127.0.0.1", "beta");
    const server = fork(fileURLToPath(new URL("./link-server.js", import.meta.url)), [folder]);
    try {
      const [{ address, generated, secured }] = await once(server, "message");
      const beta = security(ca.material("beta"));
      const pulls = [() => pullGenerated(generated), () => pull(address), () => pull(secured, beta)];
      const [peer, own, sealed] = await measure(server, pulls);
      if (peer === undefined || own === undefined || sealed === undefined) return;
      const note = (side: Side): string => `${median(side.server).toFixed(2)} CPU s/GB at the server`;
      report({ group: GROUP, name: names[0], ...summary(peer.rounds), note: note(peer) });
      report({ group: GROUP, name: names[1], ...against(own.rounds, "generated", peer.rounds), note: note(own) });
      report({ group: GROUP, name: names[2], ...against(sealed.rounds, "clear", own.rounds), note: note(sealed) });
    } finally {
      server.disconnect();
      await once(server, "exit");
      rmSync(folder, { recursive: true });
    }
  },
};
