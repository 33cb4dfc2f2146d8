/**
 * Runs two agents on each host with the default sockets and without TLS. Their operator moves a guest with them, and
 * another user of the host lists, starts, dials and reads nothing.
 */
import { execFile } from "node:child_process";
import { chmodSync, chownSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import t from "tap";
import { connectDestination } from "../../shared/link/grpc/grpc-link.ts";
import { OPERATOR_IN_CLEAR } from "../../shared/link/tls/security.ts";
import { packageRoot } from "../../shared/runtime/package-root.ts";
import type { HostAgents } from "../support/agents.ts";
import { ferryJson, migrate, requireMoved } from "../support/ferry-json.ts";
import { LIMITS } from "../support/link.ts";
import { folder, offer } from "../support/link-fixtures.ts";
import { IDLE, openPair } from "../support/pair.ts";
import type { Rig, RigHost } from "../support/rig.ts";

t.setTimeout(240_000);

const NOBODY = 65534;
const IS_ROOT = process.getuid?.() === 0;
const WITHIN_MS = 60_000;

/** The flags of an agent as it is by default, except for the address at which the other agents of this machine call. */
const flagsOf = (rig: Rig, host: RigHost, kind: "source" | "destination"): string[] => [
  `--listen=unix:${peerSocket(rig, host, kind)}`,
  `--operators-socket={runtime}/${kind}.sock`,
  "--tls-insecure=false",
];
const peerSocket = (rig: Rig, host: RigHost, kind: string): string => join(rig.folder, `${host.name}-${kind}.sock`);

/** Runs a program as user nobody. */
function asNobody(command: string, args: readonly string[]): Promise<{ code: unknown; output: string }> {
  return new Promise((resolve) => {
    const options = { uid: NOBODY, gid: NOBODY, cwd: "/", timeout: WITHIN_MS };
    execFile(command, [...args], options, (error, out, err) => resolve({ code: error?.code ?? 0, output: out + err }));
  });
}

/** The inodes of the sockets that listen by TCP in the network namespace of a process. */
function tcpListeners(pid: number): Set<string> {
  const lines = ["tcp", "tcp6"].flatMap((name) =>
    readFileSync(`/proc/${pid}/net/${name}`, "utf8").split("\n").slice(1),
  );
  const fields = lines.map((line) => line.trim().split(/\s+/));
  return new Set(fields.filter(([, , , state]) => state === "0A").map((one) => `socket:[${one[9]}]`));
}

function openSockets(pid: number): string[] {
  return readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/${pid}/fd/${fd}`)];
    } catch {
      return [];
    }
  });
}

t.test("an agent with default settings serves its operators, and no other user", async (t) => {
  const { rig, a, b } = await openPair(t, {
    guest: { name: "alone", workload: IDLE },
    rig: { network: "loopback" },
    flags: flagsOf,
  });
  const socket = (host: RigHost, kind: string): string => join(host.runtimeDirectory, `${kind}.sock`);
  const [atA, atB] = [a, b].map(
    (one): HostAgents => ({
      ...one,
      sourceAddress: `unix:${socket(one.host, "source")}`,
      destinationAddress: `unix:${peerSocket(rig, one.host, "destination")}`,
    }),
  ) as [HostAgents, HostAgents];

  await t.test("no agent listens by TCP", async (t) => {
    for (const agent of [a.source, a.destination, b.source, b.destination]) {
      const listeners = tcpListeners(agent.pid);
      t.same(
        openSockets(agent.pid).filter((one) => listeners.has(one)),
        [],
      );
    }
  });

  await t.test("user nobody can use no socket, and can read no file", { skip: !IS_ROOT && "only root" }, async (t) => {
    // the way to the hosts' directories is opened, so only what the agents have done keeps another user out
    chmodSync(rig.folder, 0o755);
    const sockets = [socket(rig.a, "source"), socket(rig.b, "destination"), peerSocket(rig, rig.b, "destination")];
    const script = `
      const addresses = process.argv.slice(1);
      for (const path of addresses) require("net").connect(path).on("error", (e) => console.log(e.code))
        .on("connect", function () { console.log("CONNECTED " + path); this.destroy(); });`;
    t.same(await asNobody(process.execPath, ["-e", script, ...sockets]), { code: 0, output: "EACCES\n".repeat(3) });
    const ferry = join(packageRoot(), "dist", "cli", "main.js");
    for (const args of [["list"], ["guests"], ["migrate", "alone", "--to", "unix:/tmp/none.sock"]]) {
      const { code, output } = await asNobody(process.execPath, [ferry, "--agent", atA.sourceAddress, ...args]);
      t.match({ code, output }, { code: 1, output: /User 65534 may not use the socket unix:/ }, args.join(" "));
    }
    for (const host of [rig.a, rig.b])
      for (const directory of [host.runtimeDirectory, host.stateDirectory]) {
        const { output } = await asNobody("/usr/bin/find", [directory, "-readable"]);
        t.match(output, /Permission denied/, directory);
        t.equal(output.trim().split("\n").length, 1, `user nobody reads nothing in ${directory}`);
      }
    chmodSync(rig.folder, 0o700);
  });

  await t.test(
    "an agent does not call a socket at which another user listens",
    { skip: !IS_ROOT && "only root" },
    async (t) => {
      const at = folder(t);
      const evil = join(at, "evil.sock");
      let calls = 0;
      const server = createServer(() => calls++);
      await new Promise<void>((resolve) => server.listen(evil, resolve));
      t.teardown(() => server.close());
      chownSync(evil, NOBODY, NOBODY);
      for (const args of [
        ["plan", "alone"],
        ["migrate", "alone"],
      ]) {
        const { code, answer } = await ferryJson(rig, atA, [...args, "--to", `unix:${evil}`]);
        t.match(answer, { error: { code: "not-authorised", message: /evil\.sock, which belongs to user 65534/ } });
        t.equal(code, 1);
      }
      t.equal(calls, 0);
    },
  );

  await t.test("the operators' socket of a destination takes no handshake", async (t) => {
    const limits = { ...LIMITS, security: OPERATOR_IN_CLEAR };
    const client = connectDestination(`unix:${socket(rig.b, "destination")}`, limits);
    t.teardown(() => client.close());
    await t.rejects(client.handshake(offer, WITHIN_MS), { code: "not-authorised", message: /is not for operators/ });
  });

  await t.test("an operator moves the guest by these sockets, and the log says which user that was", async (t) => {
    requireMoved(await migrate(rig, atA, atB, "alone"));
    const uid = process.getuid?.();
    t.match(
      a.source.output(),
      new RegExp(`"call":"Migrate","guest":"alone".*"caller":"a unix socket, user ${uid} \\(`),
    );
  });
});
