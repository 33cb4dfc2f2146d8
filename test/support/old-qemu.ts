/**
 * Finds the QEMU of Debian 12 for the tests that want a real old QEMU. It is unpacked beside the one that is installed:
 *
 *     apt-get download qemu-system-x86/bookworm qemu-system-data/bookworm qemu-system-common/bookworm
 *     for package in *.deb; do dpkg-deb -x "$package" .cache/qemu-7.2; done
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "../../shared/runtime/package-root.ts";

/** The beginning of a command line of the old QEMU, or undefined if there is no such QEMU. */
export function oldQemu(): readonly string[] | undefined {
  const folder = join(packageRoot(), ".cache", "qemu-7.2");
  const program = join(folder, "usr", "bin", "qemu-system-x86_64");
  // the old QEMU has its own firmware, but takes the PC BIOS of the installed QEMU
  const firmware = [join(folder, "usr", "share", "qemu"), "/usr/share/seabios"];
  return existsSync(program) ? [program, ...firmware.flatMap((part) => ["-L", part])] : undefined;
}
