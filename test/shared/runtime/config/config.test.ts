/** Tests the configuration of the agents: where a value comes from, what it becomes, and what is refused. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t, { type Test } from "tap";
import { MigrationFault } from "../../../../shared/fault.ts";
import { askedFor, loadDestinationConfig, loadSourceConfig } from "../../../../shared/runtime/config/config.ts";
import { environmentName, flagName, listKeys, nearest } from "../../../../shared/runtime/config/config-keys.ts";
import { destinationSchema, sourceSchema } from "../../../../shared/runtime/config/config-schema.ts";
import { folder as makeFolder } from "../../../support/link-fixtures.ts";

/** Makes a folder, and the flags that keep a test out of /run and /var. The path is short, as sockets need it. */
function places(t: Test, content: Record<string, string> = {}): { flags: string[]; folder: string } {
  const folder = makeFolder(t);
  mkdirSync(join(folder, "guests"));
  for (const [name, text] of Object.entries(content)) writeFileSync(join(folder, name), text);
  const flags = ["--guests-directory", join(folder, "guests"), "--runtime-directory", join(folder, "run")];
  return { flags: [...flags, `--state-directory=${join(folder, "state")}`], folder };
}

function advice(thrown: unknown): string {
  return (thrown as MigrationFault).advice ?? "";
}

t.test("the defaults of the source are those of its documentation, converted and frozen", async (t) => {
  const { flags, folder } = places(t);
  const config = loadSourceConfig(flags, {});
  t.same(config, {
    listen: [],
    advertise: "",
    operatorSocketPath: join(folder, "run", "source.sock"),
    operatorGroup: "",
    destinationsAllowed: [],
    guestsDirectory: join(folder, "guests"),
    runtimeDirectory: join(folder, "run"),
    stateDirectory: join(folder, "state"),
    logLevel: "info",
    tlsInsecure: false,
    tls: undefined,
    qmpTimeoutMs: 10_000,
    shutdownGraceMs: 30_000,
    link: { giveUpAfterMs: 60_000, keepAliveMs: 2000, finalGiveUpAfterMs: 5000, doubtAfterMs: 10_000 },
    onShutdown: "abort",
    faults: [],
    memory: { baseCacheBytes: 256 << 20, arenaBytes: 64 << 20, keep: "off" },
    transfer: { frameBytes: 512 << 10, creditWindowBytes: 16 << 20, syncRate: 20, zstdWorkers: 1 },
    downtimeTargetMs: 300,
    handshakeTimeoutMs: 60_000,
    migrationsMax: 4,
    operatorStreamsMax: 64,
    connections: { max: 256, perAddress: 64, handshakesPerSecond: 50, maxAgeMs: 3_600_000 },
    rehearsal: true,
  });
  t.ok(Object.isFrozen(config) && Object.isFrozen(config.transfer) && Object.isFrozen(config.listen));
});

t.test("the defaults of the destination are those of its documentation", async (t) => {
  const { flags, folder } = places(t);
  t.match(loadDestinationConfig(flags, {}), {
    operatorSocketPath: join(folder, "run", "destination.sock"),
    listen: [],
    mediaDirectories: [],
    receiveWindowBytes: 16 << 20,
    qemuStartTimeoutMs: 30_000,
    followUpMs: 30_000,
    memoryReserveBytes: 256 << 20,
    link: { giveUpAfterMs: 60_000, keepAliveMs: 2000, byHand: false },
    rehearsal: true,
    migrationsMax: 4,
    operatorStreamsMax: 64,
    faults: [],
  });
});

t.test("the command line counts before the environment, and the environment before the file", async (t) => {
  const { flags, folder } = places(t, {
    "ferry.json": JSON.stringify({
      listen: ["unix:/run/y", "unix:/run/x"],
      memory: { arena: "16MiB", baseCache: "1GB" },
      transfer: { zstdWorkers: 0 },
      log: { level: "warn" },
    }),
  });
  const file = join(folder, "ferry.json");
  const env = { FERRY_LOG_LEVEL: "debug", FERRY_MEMORY_BASE_CACHE: "2GB", FERRY_AGENT: "host:1", OTHER: "x" };
  const expected = {
    listen: ["unix:/run/y", "unix:/run/x"],
    logLevel: "trace",
    memory: { arenaBytes: 16 << 20, baseCacheBytes: 2e9 },
    transfer: { zstdWorkers: 0 },
  };
  t.match(loadSourceConfig([...flags, "--config", file, "--log-level=trace"], env), expected);
  t.match(loadSourceConfig([...flags, "--log-level", "trace"], { ...env, FERRY_CONFIG: file }), expected);
});

t.test("lists are comma-separated and a yes-or-no flag may stand alone", async (t) => {
  const { flags } = places(t);
  const listen = "10.0.0.1:7411, unix:/run/ferry/s";
  const config = loadSourceConfig(["--tls-insecure", ...flags, "--listen", listen, "--transfer-sync-rate", "50"], {});
  t.same(config.listen, ["10.0.0.1:7411", "unix:/run/ferry/s"]);
  t.equal(config.tlsInsecure, true);
  t.equal(config.transfer.syncRate, 50);
  t.equal(loadSourceConfig([...flags, "--tls-insecure", "false"], {}).tlsInsecure, false);
  t.same(loadDestinationConfig([...flags, "--faults", "corrupt-page"], {}).faults, ["corrupt-page"]);
});

t.test("directories for media are named by absolute paths, and the whole host is none of them", async (t) => {
  const { flags, folder } = places(t);
  const media = (given: string) => loadDestinationConfig([...flags, "--guests-media", given], {});
  t.match(media("/srv/iso/, /srv/../mnt/iso"), { mediaDirectories: ["/srv/iso", "/mnt/iso"] });
  t.equal(media("/srv/iso").guestsDirectory, join(folder, "guests"), "the other key of guests stays");
  for (const wrong of ["iso", "/", "/srv/..", "nbd:unix:/x"])
    t.throws(() => media(wrong), { code: "configuration", message: /guests\.media has / }, wrong);
  t.throws(() => loadSourceConfig([...flags, "--guests-media=/srv/iso"], {}), { code: "configuration" });
});

t.test("an unknown key is refused wherever it stands, and the nearest key that exists is named", async (t) => {
  const { flags, folder } = places(t, {
    "nested.json": '{"memory": {"arenas": "1MiB"}}',
    "top.json": '{"memory.arena": {}}',
    "shape.json": '{"memory": 5}',
    "broken.json": "{",
    "list.json": "[]",
    "proto.json": '{"__proto__": {"a": 1}}',
  });
  const cases: [string[], NodeJS.ProcessEnv, RegExp, RegExp][] = [
    [["--memory-arenas", "1MiB"], {}, /"--memory-arenas" on the command line/, /--memory-arena\?/],
    [["memory"], {}, /"memory" on the command line/, /--help/],
    [[], { FERRY_MEMORY_ARENAS: "1MiB" }, /FERRY_MEMORY_ARENAS in the environment/, /FERRY_MEMORY_ARENA\?/],
    [["--config", join(folder, "nested.json")], {}, /"memory\.arenas" in .*nested\.json/, /memory\.arena\?/],
    [["--config", join(folder, "top.json")], {}, /"memory\.arena" in/, /memory\.arena\?/],
    [["--config", join(folder, "shape.json")], {}, /"memory" in .* is not an object/, /^$/],
    [["--config", join(folder, "broken.json")], {}, /Cannot read the configuration/, /^$/],
    [["--config", join(folder, "list.json")], {}, /not a JSON object/, /^$/],
    [["--config", join(folder, "proto.json")], {}, /__proto__/, /--help/],
    [["--config", join(folder, "none.json")], {}, /ENOENT/, /^$/],
    [["--log-level"], {}, /--log-level on the command line has no value/, /^$/],
  ];
  for (const [argv, env, message, hint] of cases) {
    const fault = t.throws(() => loadSourceConfig([...flags, ...argv], env), { code: "configuration", message });
    t.match(advice(fault), hint, String(message));
  }
});

t.test("every wrong value is named, with how it should be written", async (t) => {
  const { flags, folder } = places(t, { "numbers.json": '{"memory": {"arena": 64}, "followUp": "30s"}' });
  const cases: [string[], RegExp][] = [
    [["--memory-arena", "64"], /memory\.arena: "64" is not a size.*"256MiB"/],
    [
      ["--memory-arena", "64", "--qmp-timeout", "10"],
      /memory\.arena[\s\S]*qmp\.timeout|qmp\.timeout[\s\S]*memory\.arena/,
    ],
    [["--transfer-zstd-workers", "1.5"], /transfer\.zstdWorkers: must be a whole number/],
    [["--transfer-zstd-workers", "65"], /transfer\.zstdWorkers is 65/],
    [["--transfer-sync-rate", "0"], /transfer\.syncRate is 0/],
    [["--transfer-frame-bytes", "1GB"], /transfer\.frameBytes is 1000000000 bytes/],
    [["--log-level", "loud"], /log\.level: must be one of trace/],
    [["--tls-insecure=maybe"], /tls\.insecure: must be true or false/],
    [["--advertise", "beta:7411"], /advertise is beta:7411, and listen is empty/],
    [["--operators-socket", `/run/${"x".repeat(110)}`], /operators\.socket has 115 bytes, more than the 107/],
    [["--listen", "7411"], /"7411" is not an address/],
    [["--state-directory", "/dev/null/x"], /stateDirectory cannot be used/],
    [["--runtime-directory", "/dev/null"], /runtimeDirectory/],
  ];
  for (const [argv, message] of cases)
    t.throws(() => loadSourceConfig([...flags, ...argv], {}), { message }, argv.join(" "));
  t.throws(() => loadSourceConfig([...flags, "--config", join(folder, "numbers.json")], {}), { message: /"followUp"/ });
  t.throws(() => loadDestinationConfig([...flags, "--faults", "corrupt-pag"], {}), {
    message: /faults has "corrupt-pag"/,
  });
});

t.test("operators have a socket where the setting says, or none", async (t) => {
  const { flags, folder } = places(t);
  t.equal(loadSourceConfig([...flags, "--operators-socket="], {}).operatorSocketPath, undefined);
  const elsewhere = loadSourceConfig([...flags, "--operators-socket", "{runtime}/ops/a.sock"], {});
  t.equal(elsewhere.operatorSocketPath, join(folder, "run", "ops", "a.sock"));
});

t.test("an address without TLS is refused, also on the loopback, unless tls.insecure was set", async (t) => {
  const { flags } = places(t);
  for (const address of ["127.0.0.1:7411", "[::1]:7411", "localhost:7411"])
    t.throws(() => loadSourceConfig([...flags, "--listen", address], {}), {
      code: "configuration",
      message: `listen has ${address}, which would serve anybody who reaches it: there is no TLS`,
    });
  const listen = [...flags, "--listen", "10.0.0.1:7411"];
  t.match(advice(t.throws(() => loadSourceConfig(listen, {}), { code: "configuration" })), /tls\.insecure/);
  t.equal(loadSourceConfig([...listen, "--tls-insecure"], {}).advertise, "10.0.0.1:7411");
  const wildcard = [...flags, "--tls-insecure", "--listen", "0.0.0.0:7411"];
  t.throws(() => loadSourceConfig(wildcard, {}), { message: /advertise would be 0\.0\.0\.0:7411/ });
  t.equal(loadSourceConfig([...wildcard, "--advertise", "host-a:7411"], {}).advertise, "host-a:7411");
});

t.test("--help documents every key with its unit, default and names, --version tells the version", async (t) => {
  for (const [role, schema] of [
    ["source", sourceSchema()],
    ["destination", destinationSchema()],
  ] as const) {
    const help = askedFor(role, ["--help"]) ?? "";
    for (const { path, key } of listKeys(schema)) {
      t.ok(key.doc.length > 10 && key.unit !== "", path);
      for (const part of [path, environmentName(path), flagName(path), key.doc, key.unit])
        t.ok(help.includes(part), part);
    }
  }
  t.match(askedFor("source", ["--version"]), /^ferry-source \d+\.\d+\.\d+\n$/);
  t.equal(askedFor("source", ["--log-level", "info"]), undefined);
});

t.test("the names of a setting follow from its key", async (t) => {
  t.equal(environmentName("memory.baseCache"), "FERRY_MEMORY_BASE_CACHE");
  t.equal(flagName("memory.baseCache"), "--memory-base-cache");
  t.equal(nearest("lisen", ["listen", "log.level"]), "listen");
  t.equal(nearest("something-else", ["listen", "log.level"]), undefined);
  t.type(new MigrationFault("configuration", ""), Error);
});

t.test("TLS is configured whole or not at all", async (t) => {
  const { flags } = places(t);
  const files = ["--tls-ca=a.pem", "--tls-certificate=b.pem", "--tls-key=c.pem"];
  const lists = ["--tls-peers=alpha, beta", "--tls-operators=op"];
  const config = loadSourceConfig([...flags, ...files, ...lists, "--listen=192.0.2.1:7411"], {});
  t.match(config.tls, { files: { ca: /^\/.*a\.pem$/ }, peers: ["alpha", "beta"], operators: ["op"] });
  const environment = { FERRY_TLS_CA: "/a", FERRY_TLS_CERTIFICATE: "/b", FERRY_TLS_KEY: "/c", FERRY_TLS_PEERS: "x" };
  t.match(loadDestinationConfig(flags, environment).tls, { files: { key: "/c" }, peers: ["x"], operators: [] });
  const half: readonly (readonly [string[], RegExp])[] = [
    [files.slice(0, 2), /^tls\.key is missing beside tls\.ca$/],
    [files.slice(2), /^tls\.ca is missing beside tls\.key$/],
    [["--tls-peers=alpha"], /^tls\.ca is missing beside tls\.peers$/],
    [[...files, "--tls-insecure"], /^tls\.insecure is set although TLS is configured$/],
  ];
  for (const [given, message] of half)
    t.throws(() => loadSourceConfig([...flags, ...given], {}), { code: "configuration", message });
});

t.test("a runtimeDirectory in which a socket's path would be too long is refused with its limit", async (t) => {
  const { flags, folder } = places(t);
  const longer = (bytes: number): string => join(folder, "x".repeat(bytes - folder.length - 1));
  const at = (directory: string, ...more: string[]): string[] => [...flags, "--runtime-directory", directory, ...more];
  // the longest sockets of the agents are ID.rehearsal-monitor and ID.rehearsal-destination-monitor, and without a
  // warm-up ID.stream and ID.monitor-2
  for (const [load, most, mostWithoutWarmUp] of [
    [loadSourceConfig, 76, 87],
    [loadDestinationConfig, 64, 84],
  ] as const) {
    t.equal(load(at(longer(most)), {}).runtimeDirectory, longer(most));
    const message = new RegExp(`^runtimeDirectory /.* has ${most + 1} bytes and may have ${most}: `);
    t.throws(() => load(at(longer(most + 1)), {}), { code: "configuration", message, advice: /shorter path/ });
    t.ok(load(at(longer(mostWithoutWarmUp), "--rehearsal=false"), {}));
    t.throws(() => load(at(longer(mostWithoutWarmUp + 1), "--rehearsal=false"), {}), { code: "configuration" });
  }
});
