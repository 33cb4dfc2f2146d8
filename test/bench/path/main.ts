/**
 * Measures the whole path of a page, with both agents' parts in two processes and gRPC between them:
 *
 *     feeder ─unix socket─> source ─gRPC─> destination ─unix socket─> player of QEMU
 *
 *     npm run bench:path [-- --beside DIR] [--rounds N] [--later N] [--zstd LEVEL] [--tls] [--change other|words]
 *
 * A round is one life of source and destination, with a first migration and some later ones. With `--beside`, the
 * halves of another checkout, which is built, take turns with those of this one. The table has CPU seconds for each GB
 * of guest pages, for each process; test/bench/README.md says how to read it.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { argument } from "../../../cli/context.ts";
import { packageRoot } from "../../../shared/runtime/package-root.ts";
import { TestCa } from "../../support/tls.ts";
import { benchmark, wholeNumber } from "../arguments.ts";
import { guestDump } from "./guest-dump.ts";
import { type Bench, compilePlayers, Life, type Migrated } from "./life.ts";
import type { Task } from "./messages.ts";
import { report } from "./report.ts";
import { CHANGES, type Change, writeStream } from "./stream.ts";
import { certificates } from "./terms.ts";

const PAGES_A_MIB = 256;

const values = benchmark("bench:path")
  .option("--beside <dir>", "take turns with another checkout, which is built")
  .option("--rounds <n>", "lives of both halves, of each checkout", argument(wholeNumber), 3)
  .option("--later <n>", "migrations of each life after its first", argument(wholeNumber), 3)
  .option("--mib <n>", "guest pages of a pass, MiB", argument(wholeNumber), 128)
  .option("--passes <n>", "passes of a migration", argument(wholeNumber), 2)
  .option("--zstd <level>", "compress with this level, as -8", Number)
  .option("--tls", "secure the link by mutual TLS")
  .option("--keep", "keep the source's memory for the next migration")
  .option("--change <what>", `how the second pass differs: ${CHANGES.join(" or ")}`, "other")
  .option("--json", "print every migration as a line of JSON instead of a table")
  .parse()
  .opts<{
    beside?: string;
    rounds: number;
    later: number;
    mib: number;
    passes: number;
    zstd?: number;
    tls?: true;
    keep?: true;
    change: Change;
    json?: true;
  }>();

const folder = mkdtempSync(join(tmpdir(), "ferry-path-"));
try {
  compilePlayers(folder);
  if (values.tls) new TestCa(certificates(folder)).make("alpha=127.0.0.1", "beta=127.0.0.1");
  const pages = values.mib * PAGES_A_MIB;
  const stream = writeStream(folder, await guestDump(), pages, values.change);
  const bench: Bench = { folder, passes: values.passes };
  const task: Task = {
    folder,
    pages,
    compression: values.zstd ?? "off",
    tls: values.tls ?? false,
    keep: values.keep ?? false,
  };
  const roots = [packageRoot(), ...(values.beside === undefined ? [] : [resolve(values.beside)])];
  const lives = roots.map((root) => ({ root, first: [] as Migrated[], later: [] as Migrated[] }));
  for (let round = 0; round < values.rounds; round++)
    for (const one of round % 2 === 0 ? lives : lives.toReversed()) {
      const life = await Life.start(one.root, bench, task);
      one.first.push(await life.migrate(stream));
      for (let more = 0; more < values.later; more++) one.later.push(await life.migrate(stream));
      await life.end();
    }
  if (values.json) for (const one of lives) console.log(JSON.stringify(one));
  else console.log(report(lives));
} finally {
  rmSync(folder, { recursive: true, force: true });
}
