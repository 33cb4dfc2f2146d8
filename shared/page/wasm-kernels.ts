/**
 * The page kernels as WebAssembly with SIMD, several times as fast as the plain ones. The compiled module is handed in:
 * this folder opens no files (shared/runtime/load-kernels.ts does).
 *
 * The memory is shared, so that a compression thread reads a frame where it was written. A range has one writer at a
 * time, which its users agree on among themselves. An address outside of the memory is a mistake in the program, and is
 * not checked for each page: it throws a WebAssembly.RuntimeError, or goes unnoticed up to the next multiple of 64 KiB.
 */
import { MigrationFault } from "../fault.ts";
import type { Address } from "../units.ts";
import { checkMemoryLength, WASM_PAGE_BYTES } from "./kernel-memory.ts";
import type { PageKernels } from "./kernels.ts";

/** The exports of kernels.as.ts. A truth value is 0 or 1. */
interface KernelExports {
  isZero(page: number): number;
  equal(a: number, b: number): number;
  copy(to: number, from: number, length: number): void;
  encodeDelta(base: number, current: number, out: number, limit: number): number;
  decodeDelta(page: number, delta: number, length: number): number;
  deltaIsValid(delta: number, length: number): number;
  checksum(from: number, length: number, out: number): void;
}

const NAMES = ["isZero", "equal", "copy", "encodeDelta", "decodeDelta", "deltaIsValid", "checksum"] as const;

function areKernels(exports: object): exports is KernelExports {
  const functions = new Map<string, unknown>(Object.entries(exports));
  return NAMES.every((name) => typeof functions.get(name) === "function");
}

/**
 * Makes kernels with a memory of their own.
 * @param byteLength length of the memory, including the reserved part (kernel-memory.ts). It is address space: memory
 *   that is never touched costs nothing
 * @throws RangeError when no memory can have this length, TypeError when the module is not made from kernels.as.ts,
 *   MigrationFault `configuration` when the host has no room for the memory
 */
export function createWasmKernels(wasmModule: WebAssembly.Module, byteLength: number): PageKernels {
  checkMemoryLength(byteLength);
  const memory = reserve(byteLength);
  const { exports } = new WebAssembly.Instance(wasmModule, { env: { memory } });
  if (!areKernels(exports)) throw new TypeError("the module does not export the page kernels");
  return new WasmKernels(new Uint8Array(memory.buffer, 0, byteLength), exports);
}

function reserve(byteLength: number): WebAssembly.Memory {
  const pieces = Math.ceil(byteLength / WASM_PAGE_BYTES);
  try {
    return new WebAssembly.Memory({ initial: pieces, maximum: pieces, shared: true });
  } catch (cause) {
    throw new MigrationFault("configuration", `The host has no room for ${byteLength} bytes of page memory`, {
      cause,
      advice: "Lower the memory budgets in the agent's configuration, or raise the address space limit of its process",
    });
  }
}

class WasmKernels implements PageKernels {
  readonly memory: Uint8Array;
  private readonly run: KernelExports;

  constructor(memory: Uint8Array, run: KernelExports) {
    this.memory = memory;
    this.run = run;
  }

  isZero(page: Address): boolean {
    return this.run.isZero(page) !== 0;
  }

  equal(a: Address, b: Address): boolean {
    return this.run.equal(a, b) !== 0;
  }

  copy(to: Address, from: Address, length: number): void {
    this.run.copy(to, from, length);
  }

  encodeDelta(base: Address, current: Address, out: Address, limit: number): number {
    return this.run.encodeDelta(base, current, out, limit);
  }

  decodeDelta(page: Address, delta: Address, length: number): number {
    return this.run.decodeDelta(page, delta, length);
  }

  deltaIsValid(delta: Address, length: number): boolean {
    return this.run.deltaIsValid(delta, length) !== 0;
  }

  checksum(from: Address, length: number, out: Address): void {
    this.run.checksum(from, length, out);
  }
}
