/** Who may import whom (the rooms of the project), read from the import lines of every source file. */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize, relative } from "node:path";
import t from "tap";
import { packageRoot } from "../shared/runtime/package-root.ts";

const root = packageRoot();

/** Rooms from the most special to the most general: a file is in the first that fits. */
const ROOMS: readonly (readonly [name: string, path: RegExp, imports: readonly string[]])[] = [
  ["base", /^shared\/[a-z-]+\.ts$/, ["base"]],
  ["page", /^shared\/page\//, ["base", "page"]],
  ["codec", /^shared\/codec\//, ["base", "page", "codec"]],
  ["protocol", /^shared\/protocol\//, ["base", "page", "protocol"]],
  ["model", /^shared\/model\//, ["base", "model"]],
  ["qemu", /^shared\/qemu\//, ["base", "qemu", "protocol", "runtime"]],
  ["runtime", /^shared\/runtime\//, ["base", "page", "runtime"]],
  ["link", /^shared\/link\//, ["base", "page", "codec", "protocol", "runtime", "link"]],
  ["source", /^agent-source\//, ["base", "page", "codec", "protocol", "model", "qemu", "runtime", "link", "source"]],
  [
    "destination",
    /^agent-destination\//,
    ["base", "page", "codec", "protocol", "qemu", "runtime", "link", "destination"],
  ],
  ["cli", /^cli\//, ["base", "protocol", "runtime", "link", "cli"]],
];

/** Packages that one place alone may know, so that they can be replaced there. */
const ONLY_IN: readonly (readonly [packages: RegExp, where: RegExp])[] = [
  [/^(@grpc\/|grpc-health-check)/, /^shared\/link\//],
  [/^convict$/, /^shared\/runtime\/config/],
  [/^pino$/, /^shared\/runtime\/log\.ts$/],
  [/^zstd-napi/, /^shared\/(codec|runtime)\/zstd/],
  [/^commander$/, /^cli\//],
];

/** Rooms that touch nothing of the host: they can be tested with no clock, no link and no files. */
const PURE = ["base", "page", "codec", "protocol", "model"];

interface Import {
  readonly file: string;
  readonly from: string;
}

function sources(folder: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts") && !name.endsWith(".as.ts") && !name.endsWith(".d.ts"))
    .map((name) => `${folder}/${name}`);
}

const files = ["shared", "agent-source", "agent-destination", "cli"].flatMap(sources);
const contents = new Map(files.map((file) => [file, readFileSync(join(root, file), "utf8")]));
/** Every way to name a module: `import … from`, `export … from`, an import for its effect alone, and `import()`. */
const IMPORT = /^(?:import|export)\b[^;]*?from "([^"]+)";|^import "([^"]+)";|\bimport\(\s*["'`]([^"'`]+)/gms;
const imports: Import[] = [...contents].flatMap(([file, text]) =>
  [...text.matchAll(IMPORT)].map((match) => ({ file, from: match[1] ?? match[2] ?? match[3] ?? "" })),
);

const roomOf = (file: string): string => ROOMS.find(([, path]) => path.test(file))?.[0] ?? "nowhere";
const target = ({ file, from }: Import): string => relative(root, normalize(join(root, dirname(file), from)));

t.test("every file is in a room", async (t) => {
  t.same(
    files.filter((file) => roomOf(file) === "nowhere"),
    [],
  );
  t.ok(imports.length > 200, `${imports.length} imports were read`);
});

t.test("a room imports only the rooms that it may know", async (t) => {
  const forbidden = imports.filter((one) => {
    if (!one.from.startsWith(".")) return false;
    const allowed = ROOMS.find(([name]) => name === roomOf(one.file))?.[2] ?? [];
    return !allowed.includes(roomOf(target(one)));
  });
  t.same(forbidden, []);
});

t.test("the agents do not know each other", async (t) => {
  const crossed = imports.filter(
    (one) =>
      (one.file.startsWith("agent-source/") && target(one).startsWith("agent-destination/")) ||
      (one.file.startsWith("agent-destination/") && target(one).startsWith("agent-source/")),
  );
  t.same(crossed, []);
});

t.test("pure rooms import nothing of the host", async (t) => {
  const impure = imports.filter((one) => PURE.includes(roomOf(one.file)) && one.from.startsWith("node:"));
  t.same(impure, []);
});

t.test("pure rooms have no clock, no chance and no log", async (t) => {
  const globals =
    /\b(?:Date\.now|new Date|performance\.now|Math\.random|set(?:Timeout|Interval|Immediate)|console\.|process\.(?!\s))/;
  const impure = [...contents].filter(
    ([file, text]) => PURE.includes(roomOf(file)) && globals.test(text.replace(/\/\*.*?\*\/|\/\/[^\n]*/gs, "")),
  );
  t.same(
    impure.map(([file]) => file),
    [],
  );
});

t.test("each package is known in one place", async (t) => {
  const strays = imports.filter((one) =>
    ONLY_IN.some(([packages, where]) => packages.test(one.from) && !where.test(one.file)),
  );
  t.same(strays, []);
});

t.test("what callers handle is a MigrationFault, never a bare Error", async (t) => {
  t.same(
    [...contents].filter(([, text]) => /\bnew Error\(/.test(text)).map(([file]) => file),
    [],
  );
});

t.test("one place of each agent assigns its state", async (t) => {
  for (const agent of ["agent-source", "agent-destination"]) {
    const writers = [...contents].filter(([file, text]) => file.startsWith(agent) && /^\s*state = /m.test(text));
    t.same(
      writers.map(([file]) => file),
      [`${agent}/${agent.replace("agent-", "")}-migration.ts`],
    );
  }
});

/** What starts a guest, ends one, or lets QEMU run it again by itself; and where each agent has its one door for it. */
const DOORS: readonly (readonly [word: string, source: string | undefined, destination: string | undefined])[] = [
  ["cont", "own-qemu.ts", "guest-process.ts"],
  ["quit", "own-qemu.ts", "guest-process.ts"],
  ["migrate_cancel", "own-qemu.ts", undefined],
];

t.test("a guest is started and ended at one place of each agent", async (t) => {
  for (const [word, source, destination] of DOORS) {
    const said = new RegExp(`execute(?:\\(|: )"${word}"`, "g");
    const places = [...contents].flatMap(([file, text]) => [...text.matchAll(said)].map(() => file));
    const doors = [
      ...(source === undefined ? [] : [`agent-source/${source}`]),
      ...(destination === undefined ? [] : [`agent-destination/${destination}`]),
    ];
    t.same(places.sort(), doors.sort(), word);
  }
});

t.test("no file is longer than 500 lines", async (t) => {
  t.same(
    [...contents].filter(([, text]) => text.split("\n").length > 500).map(([file]) => file),
    [],
  );
});
