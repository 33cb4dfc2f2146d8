/**
 * The last release of Ferry, whose package is in test/vectors/last-release. It is unpacked below .cache/, so that Node
 * finds the packages of this checkout for it.
 */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { packageRoot } from "../../shared/runtime/package-root.ts";

const VECTORS = join(packageRoot(), "test/vectors/last-release");
const UNPACKED = join(packageRoot(), ".cache/last-release");

export interface LastRelease {
  readonly version: string;
  /** The root of the unpacked package, as packageRoot() is the root of this build. */
  readonly root: string;
}

/**
 * Unpacks the package, unless it is unpacked already. Several processes may do so at once.
 * @throws Error when there is not exactly one package, or when its SHA-256 is not the one that is written beside it
 */
export function lastRelease(): LastRelease {
  const [archive, ...more] = readdirSync(VECTORS).filter((name) => name.endsWith(".tgz"));
  const version = /^ferry-(\d+\.\d+\.\d+)\.tgz$/.exec(archive ?? "")?.[1];
  if (archive === undefined || version === undefined || more.length > 0)
    throw new Error(`there is not one ferry-VERSION.tgz in ${VECTORS}`);
  const path = join(VECTORS, archive);
  const digest = createHash("sha256").update(readFileSync(path)).digest("hex");
  if (readFileSync(`${path}.sha256`, "utf8") !== `${digest}  ${archive}\n`)
    throw new Error(`${path} has the SHA-256 ${digest}, which is not the one beside it`);
  // the folder has the digest in its name, so that the package of another release is never taken for this one
  const root = join(UNPACKED, `${version}-${digest.slice(0, 16)}`);
  if (!existsSync(root)) unpack(path, root);
  return { version, root };
}

/** The modules of the last release that tests use, with the types that this build's modules have. */
interface LastModules {
  readonly services: typeof import("../../shared/link/grpc/services.ts");
  readonly pageFrame: typeof import("../../shared/codec/page-frame.ts");
  readonly discardFrame: typeof import("../../shared/codec/discard-frame.ts");
  readonly pageSet: typeof import("../../shared/page/page-set.ts");
  readonly kernels: typeof import("../../shared/runtime/load-kernels.ts");
  readonly journalFile: typeof import("../../shared/runtime/journal/journal-file.ts");
  readonly records: typeof import("../../shared/protocol/record-decoding.ts");
  readonly version: typeof import("../../shared/runtime/version.ts");
}

/** Where the last release has these modules, below its `dist/` and without the extension. */
const LAST_MODULES: Readonly<Record<keyof LastModules, string>> = {
  services: "shared/link/services",
  pageFrame: "shared/codec/page-frame",
  discardFrame: "shared/codec/discard-frame",
  pageSet: "shared/page/page-set",
  kernels: "shared/runtime/load-kernels",
  journalFile: "shared/runtime/journal-file",
  records: "shared/protocol/record-decoding",
  version: "shared/runtime/version",
};

/** Imports a module of the last release into this process, beside this build's own. */
export async function importLast<Name extends keyof LastModules>(name: Name): Promise<LastModules[Name]> {
  return await import(pathToFileURL(join(lastRelease().root, "dist", `${LAST_MODULES[name]}.js`)).href);
}

/** Unpacks an archive whose files are in one folder. The result appears at once and whole. */
function unpack(archive: string, root: string): void {
  mkdirSync(UNPACKED, { recursive: true });
  const partial = mkdtempSync(join(UNPACKED, ".partial-"));
  try {
    execFileSync("tar", ["-xzf", archive, "-C", partial, "--strip-components=1"]);
    renameSync(partial, root);
  } catch (thrown) {
    rmSync(partial, { recursive: true, force: true });
    // another process was faster
    if (!existsSync(root)) throw thrown;
  }
}
