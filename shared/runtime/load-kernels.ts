/** Loads the compiled page kernels from the file that scripts/build-kernels.sh makes. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { MigrationFault } from "../fault.ts";
import type { PageKernels } from "../page/kernels.ts";
import { createWasmKernels } from "../page/wasm-kernels.ts";
import { packageRoot } from "./package-root.ts";

let compiled: WebAssembly.Module | undefined;

/**
 * Makes kernels with a memory of their own. Their code is compiled once for the process.
 * @param byteLength the length of the memory, as createWasmKernels() takes it
 * @throws MigrationFault `internal` when the kernels were not built; and what createWasmKernels() throws
 */
export function loadKernels(byteLength: number): PageKernels {
  compiled ??= new WebAssembly.Module(readModule());
  return createWasmKernels(compiled, byteLength);
}

function readModule(): Uint8Array {
  const path = join(packageRoot(), "generated", "kernels.wasm");
  try {
    return readFileSync(path);
  } catch (cause) {
    throw new MigrationFault("internal", `The page kernels cannot be read from ${path}`, {
      cause,
      advice: "Build them with scripts/build-kernels.sh",
    });
  }
}
