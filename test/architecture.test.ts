/**
 * Enforces the rules of ARCHITECTURE.md that the text of the source files shows: which room may import which, and which
 * things happen in one place only. A room is a folder. The imports are read from the import lines of every source file.
 */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize, relative } from "node:path";
import t from "tap";
import { packageRoot } from "../shared/runtime/package-root.ts";

const root = packageRoot();

/**
 * The rooms, and for each room the other rooms whose files it may import. `shared` has only the files that lie in
 * shared/ itself. A folder that is not listed belongs to the room of the folder around it.
 */
const ROOMS: Readonly<Record<string, readonly string[]>> = {
  shared: [],
  "shared/page": ["shared"],
  "shared/codec": ["shared", "shared/page"],
  "shared/protocol": ["shared"],
  "shared/model": ["shared"],

  "shared/runtime/log": ["shared", "shared/runtime"],
  "shared/runtime/host": ["shared", "shared/runtime"],
  "shared/runtime": ["shared", "shared/page"],
  ...under("shared/runtime", {
    v8: ["shared", "", "log"],
    files: ["shared", "", "host", "log"],
    zstd: ["shared", "v8"],
    config: ["shared", "", "files", "log"],
    guest: ["shared", "", "files", "host"],
    journal: ["shared", "", "files", "log"],
    agent: ["shared", "", "config", "host", "log"],
  }),

  "shared/qemu/stream": ["shared"],
  "shared/qemu/return-path": ["shared", "shared/qemu/stream"],
  "shared/qemu/qmp": ["shared", "shared/qemu/stream", ...runtime("", "guest")],
  "shared/qemu/inspect": ["shared", "shared/protocol", "shared/qemu/qmp", "shared/qemu/stream"],

  "shared/link/tls": ["shared", "shared/runtime/config", "shared/runtime/files", "shared/runtime/log"],
  "shared/link": ["shared", "shared/protocol", "shared/link/tls"],
  ...under("shared/link", {
    wire: ["shared", "tls", "shared/protocol", "shared/runtime"],
    callers: ["shared", "", "tls", "wire", ...runtime("", "config", "guest", "log")],
    resume: ["shared", "", "wire", "shared/protocol", "shared/runtime"],
    listen: ["shared", "tls", "wire", "callers", ...runtime("", "agent", "files", "host")],
    h2: ["shared", "", "tls", "wire", "listen", "shared/runtime"],
    grpc: [
      "shared",
      "",
      "h2",
      "tls",
      "wire",
      "callers",
      "listen",
      "shared/protocol",
      ...runtime("", "agent", "config", "log"),
    ],
  }),
  "shared/warmup": [
    ...["shared", "shared/protocol", "shared/qemu/qmp"],
    ...["shared/link", "shared/link/grpc", "shared/link/resume", "shared/runtime"],
  ],

  ...under("agent-source", {
    capture: ["shared", "shared/qemu/return-path", ...runtime("", "files", "guest")],
    guest: ["shared", "shared/protocol", ...qemu("inspect", "qmp"), ...runtime("", "config", "guest", "host")],
    link: ["shared", "shared/page", "shared/protocol", "shared/runtime", "shared/link", "shared/link/resume"],
    send: ["shared", "shared/page", "shared/codec", "shared/runtime", "shared/link", "shared/link/wire", "link"],
    switchover: ["shared", "shared/model", "shared/protocol", "shared/runtime", "link", "send"],
    postcopy: ["shared", "shared/page", "shared/codec", ...qemu("return-path", "stream"), "link", "send"],
    transfer: [
      ...["shared", "shared/page", "shared/codec", "shared/protocol", "shared/link/resume"],
      ...qemu("qmp", "return-path", "stream"),
      ...runtime("", "config", "guest", "host", "log", "v8", "zstd"),
      ...["capture", "guest", "link", "postcopy", "send", "switchover"],
    ],
    report: [
      ...["shared", "shared/page", "shared/protocol", "shared/link", "shared/link/tls", "shared/qemu/inspect"],
      ...[...runtime("", "config", "host"), "transfer"],
    ],
    migration: [
      ...["shared", "shared/page", "shared/protocol", ...link("", "callers", "grpc", "resume", "tls")],
      ...qemu("inspect", "qmp", "return-path", "stream"),
      ...runtime("", "config", "files", "guest", "host", "journal", "log", "v8"),
      ...["guest", "link", "report", "send", "transfer"],
    ],
    planning: [
      ...["shared", "shared/page", "shared/codec", "shared/model", "shared/protocol", "shared/link"],
      ...[...qemu("inspect", "qmp", "stream"), ...runtime("", "config", "guest", "host", "zstd")],
      ...["capture", "guest", "link", "migration", "report", "send", "transfer"],
    ],
    service: [
      ...["shared", "shared/page", "shared/protocol", "shared/link", "shared/link/resume", ...qemu("inspect", "qmp")],
      ...runtime("", "config", "files", "guest", "host", "journal", "log", "v8"),
      ...["guest", "link", "migration", "planning", "report", "send"],
    ],
    warmup: [
      ...["shared", "shared/page", "shared/protocol", "shared/link", "shared/warmup"],
      ...[...qemu("return-path", "stream"), ...runtime("", "config", "log", "v8")],
      ...["link", "report", "send", "transfer"],
    ],
    "": [
      ...["shared/protocol", ...link("", "grpc", "tls"), "service", "warmup"],
      ...runtime("", "agent", "config", "files", "host", "journal", "log", "v8"),
    ],
  }),

  ...under("agent-destination", {
    guest: [
      ...["shared", "shared/protocol", ...qemu("inspect", "qmp")],
      ...runtime("", "files", "guest", "host", "journal", "log"),
    ],
    link: ["shared", "shared/protocol", ...link("", "grpc", "resume"), ...runtime("", "log")],
    replay: [
      ...["shared", "shared/page", "shared/codec", "shared/protocol", ...link("", "resume")],
      ...[...qemu("return-path", "stream"), ...runtime("", "v8"), "guest"],
    ],
    migration: [
      ...["shared", "shared/page", "shared/protocol", ...link("", "callers", "grpc", "listen", "resume", "tls")],
      ...[...qemu("inspect", "qmp", "stream"), ...runtime("", "config", "files", "guest", "host", "journal", "log")],
      ...["guest", "replay"],
    ],
    service: [
      ...["shared", "shared/page", "shared/protocol", ...link("", "callers", "resume")],
      ...runtime("", "config", "files", "guest", "host", "journal", "log", "v8"),
      ...["guest", "link", "migration"],
    ],
    warmup: [
      ...["shared", "shared/page", "shared/codec", "shared/protocol", "shared/link", "shared/warmup"],
      ...[...qemu("return-path", "stream"), ...runtime("", "config", "v8", "zstd"), "replay"],
    ],
    "": [
      ...["shared/protocol", ...link("", "grpc", "tls"), "guest", "service", "warmup"],
      ...runtime("", "agent", "config", "files", "host", "journal", "log", "v8"),
    ],
  }),

  cli: [
    ...["shared", "shared/protocol", ...link("grpc", "tls")],
    ...runtime("", "files", "guest", "host", "journal", "log", "v8"),
  ],
};

/**
 * Writes out the rooms below a folder with their whole paths. In the lists, a name that begins with `shared` is a whole
 * path; any other name is a room of the folder, and "" is the folder itself.
 */
function under(folder: string, rooms: Readonly<Record<string, readonly string[]>>): Record<string, string[]> {
  const whole = (name: string): string => (name.startsWith("shared") ? name : join(folder, name));
  return Object.fromEntries(Object.entries(rooms).map(([room, known]) => [join(folder, room), known.map(whole)]));
}

function runtime(...rooms: readonly string[]): string[] {
  return rooms.map((room) => join("shared/runtime", room));
}

function qemu(...rooms: readonly string[]): string[] {
  return rooms.map((room) => join("shared/qemu", room));
}

function link(...rooms: readonly string[]): string[] {
  return rooms.map((room) => join("shared/link", room));
}

/** Packages that only one place may import, so that they can be replaced there. */
const ONLY_IN: readonly (readonly [packages: RegExp, where: RegExp])[] = [
  [/^(@grpc\/|grpc-health-check)/, /^shared\/link\//],
  [/^convict$/, /^shared\/runtime\/config\//],
  [/^pino$/, /^shared\/runtime\/log\/log\.ts$/],
  [/^zstd-napi/, /^shared\/(codec\/zstd|runtime\/zstd\/)/],
  [/^commander$/, /^cli\//],
];

/** Rooms that touch nothing of the host, so that they can be tested without a clock, a link or files. */
const PURE = ["shared", "shared/page", "shared/codec", "shared/protocol", "shared/model"];

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
/** Matches every way to name a module: `import … from`, `export … from`, an import for its effect, and `import()`. */
const IMPORT = /^(?:import|export)\b[^;]*?from "([^"]+)";|^import "([^"]+)";|\bimport\(\s*["'`]([^"'`]+)/gms;
const imports: Import[] = [...contents].flatMap(([file, text]) =>
  [...text.matchAll(IMPORT)].map((match) => ({ file, from: match[1] ?? match[2] ?? match[3] ?? "" })),
);

/** The room of a file is the nearest folder around it that ROOMS lists. @returns "." for a file in no room */
function roomOf(file: string): string {
  let folder = dirname(file);
  while (folder !== "." && !Object.hasOwn(ROOMS, folder)) folder = dirname(folder);
  return folder;
}

const withoutComments = (text: string): string => text.replace(/\/\*.*?\*\/|\/\/[^\n]*/gs, "");

const target = ({ file, from }: Import): string => relative(root, normalize(join(root, dirname(file), from)));

t.test("every file is in a room", async (t) => {
  t.same(
    files.filter((file) => roomOf(file) === "."),
    [],
  );
  t.ok(imports.length > 200, `${imports.length} imports were read`);
});

t.test("a room imports all the rooms that are listed for it and no others", async (t) => {
  const known = new Map<string, Set<string>>(Object.keys(ROOMS).map((room) => [room, new Set()]));
  for (const one of imports) {
    const [room, other] = [roomOf(one.file), roomOf(target(one))];
    if (one.from.startsWith(".") && room !== other) known.get(room)?.add(other);
  }
  for (const [room, allowed] of Object.entries(ROOMS))
    t.same([...(known.get(room) ?? [])].sort(), [...allowed].sort(), room);
});

t.test("neither files nor rooms import each other in a circle", async (t) => {
  const relatives = imports.filter(({ from }) => from.startsWith("."));
  t.same(circles(relatives.map((one) => [one.file, target(one)])), []);
  t.same(circles(relatives.map((one) => [roomOf(one.file), roomOf(target(one))])), []);
});

/**
 * Finds circles in a graph of imports: again and again it takes away all nodes that import nothing that is left.
 * @returns the nodes that remain, which are in a circle or import one; none when there is no circle
 */
function circles(arrows: readonly (readonly [from: string, to: string])[]): readonly string[] {
  let left = arrows.filter(([from, to]) => from !== to);
  for (;;) {
    const from = new Set(left.map(([one]) => one));
    const next = left.filter(([, to]) => from.has(to));
    if (next.length === left.length) return [...from].sort();
    left = next;
  }
}

t.test("neither agent imports a file of the other agent", async (t) => {
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

t.test("pure rooms use no clock, no random numbers, no timers and no console", async (t) => {
  const globals =
    /\b(?:Date\.now|new Date|performance\.now|Math\.random|set(?:Timeout|Interval|Immediate)|console\.|process\.(?!\s))/;
  const impure = [...contents].filter(
    ([file, text]) => PURE.includes(roomOf(file)) && globals.test(withoutComments(text)),
  );
  t.same(
    impure.map(([file]) => file),
    [],
  );
});

t.test("Node's clocks and timers are used in shared/runtime/clock.ts only", async (t) => {
  const clocks = /\b(?:set(?:Timeout|Interval)|performance\.\w|hrtime|Date\.now|new Date\(\))/;
  const users = [...contents].filter(([, text]) => clocks.test(withoutComments(text)));
  t.same(
    users.map(([file]) => file),
    ["shared/runtime/clock.ts"],
  );
});

t.test("a package that is bound to one place is imported only there", async (t) => {
  const strays = imports.filter((one) =>
    ONLY_IN.some(([packages, where]) => packages.test(one.from) && !where.test(one.file)),
  );
  t.same(strays, []);
});

t.test("product code throws a MigrationFault and never a bare Error", async (t) => {
  t.same(
    [...contents].filter(([, text]) => /\bnew Error\(/.test(text)).map(([file]) => file),
    [],
  );
});

t.test("only one file of each agent assigns the state of a migration", async (t) => {
  for (const agent of ["agent-source", "agent-destination"]) {
    const writers = [...contents].filter(([file, text]) => file.startsWith(agent) && /^\s*state = /m.test(text));
    t.same(
      writers.map(([file]) => file),
      [`${agent}/migration/${agent.replace("agent-", "")}-migration.ts`],
    );
  }
});

/**
 * QEMU's commands that start a guest, end it, or let QEMU run it again by itself, each with the one file of each agent
 * that may say it.
 */
const DOORS: readonly (readonly [word: string, source: string | undefined, destination: string | undefined])[] = [
  ["cont", "own-qemu.ts", "guest-process.ts"],
  ["quit", "own-qemu.ts", "guest-process.ts"],
  ["migrate_cancel", "own-qemu.ts", undefined],
];

t.test("only one file of each agent says the commands that start and end a guest", async (t) => {
  for (const [word, source, destination] of DOORS) {
    const said = new RegExp(`execute(?:\\(|: )"${word}"`, "g");
    const places = [...contents].flatMap(([file, text]) => [...text.matchAll(said)].map(() => file));
    const doors = [
      ...(source === undefined ? [] : [`agent-source/guest/${source}`]),
      ...(destination === undefined ? [] : [`agent-destination/guest/${destination}`]),
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
