/** Tests that bench:path moves what it says: all pages, in both migrations of a life, in clear and over TLS. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t from "tap";
import { packageRoot } from "../../shared/runtime/package-root.ts";
import { PAGE_SIZE } from "../../shared/units.ts";
import { TestCa } from "../support/tls.ts";
import { numbers } from "./guest-pages.ts";
import { compilePlayers, Life } from "./path/life.ts";
import { writeStream } from "./path/stream.ts";
import { certificates } from "./path/terms.ts";

const PAGES = 1024;
const PASSES = 2;

t.test("a life of both halves moves every page of each pass", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "ferry-path-"));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  compilePlayers(folder);
  new TestCa(certificates(folder)).make("alpha=127.0.0.1", "beta=127.0.0.1");
  const next = numbers(1);
  const dump = Buffer.from(Uint32Array.from({ length: (64 * PAGE_SIZE) / 4 }, next).buffer);
  const stream = writeStream(folder, dump, PAGES, "other");
  for (const tls of [false, true]) {
    const task = { folder, pages: PAGES, compression: "off", tls, keep: true } as const;
    const life = await Life.start(packageRoot(), { folder, passes: PASSES }, task);
    for (const which of ["first", "later"]) {
      const { guestBytes, wireBytes, source, destination } = await life.migrate(stream);
      t.equal(guestBytes, PASSES * PAGES * PAGE_SIZE);
      // so few pages fit into the arena, where the second version of a page may replace the first before it is sent
      const enough = wireBytes > guestBytes / PASSES && wireBytes < 1.02 * guestBytes;
      t.ok(enough, `${which}: ${wireBytes} bytes for ${guestBytes}`);
      t.ok(source.user > 0 && destination.user > 0);
    }
    await life.end();
  }
});
