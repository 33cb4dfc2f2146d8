/**
 * Gives a host of a rig another QEMU than the installed one. FERRY_QEMU_A and FERRY_QEMU_B name the program that runs
 * as `qemu-system-x86_64` on host a and on host b, such as the one that scripts/unpack-qemu.sh makes. The guest's
 * definition stays the same on both hosts, as on two hosts that have different QEMUs installed.
 */
import { execFileSync } from "node:child_process";
import { accessSync, constants, mkdirSync, symlinkSync } from "node:fs";
import { delimiter, join, resolve } from "node:path";

const PROGRAM = "qemu-system-x86_64";

/** The path of the program that a host was given, or undefined where the installed one runs. */
function otherQemu(host: "a" | "b"): string | undefined {
  const given = process.env[`FERRY_QEMU_${host.toUpperCase()}`];
  return given === undefined || given === "" ? undefined : resolve(given);
}

/**
 * Makes the environment of the programs of a host: a PATH that begins with a folder in which QEMU's name leads to the
 * program that the host was given. The environment is empty where the installed QEMU runs.
 * @throws Error when the program cannot be run
 */
export function hostEnvironment(host: "a" | "b", folder: string): Record<string, string> {
  const program = otherQemu(host);
  if (program === undefined) return {};
  accessSync(program, constants.X_OK);
  mkdirSync(folder, { recursive: true });
  symlinkSync(program, join(folder, PROGRAM));
  return { PATH: `${folder}${delimiter}${process.env.PATH ?? ""}` };
}

/** The version of a host's QEMU, such as `[11, 1]`. */
function qemuVersion(host: "a" | "b"): readonly [major: number, minor: number] {
  const [major, minor] = qemuText(host).split(".");
  return [Number(major), Number(minor)];
}

/**
 * Why post-copy of a guest of this host is refused (docs/decisions/0068), for a test's `skip`; false where it is not.
 */
export function noPostcopyFrom(host: "a" | "b"): string | false {
  const emulates = (process.env.FERRY_ACCEL ?? "tcg") === "tcg";
  const loses = emulates && qemuVersion(host)[0] >= 11;
  return loses && `QEMU ${qemuText(host)} loses writes of an emulated guest in post-copy`;
}

/** The version of a host's QEMU as the QEMU itself says it, such as `11.1.3`. */
export function qemuText(host: "a" | "b"): string {
  const said = execFileSync(otherQemu(host) ?? PROGRAM, ["--version"], { encoding: "utf8" });
  return /version (\d+\.\d+\S*)/.exec(said)?.[1] ?? "unknown";
}
