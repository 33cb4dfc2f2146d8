/**
 * The QEMU of Debian 12, unpacked beside the one that is installed, for the tests that want a real old one:
 *
 *     apt-get download qemu-system-x86/bookworm qemu-system-data/bookworm qemu-system-common/bookworm
 *     for package in *.deb; do dpkg-deb -x "$package" .cache/qemu-7.2; done
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "../../shared/runtime/package-root.ts";

/** The beginning of its command line, or undefined when there is none. */
export function oldQemu(): readonly string[] | undefined {
  const folder = join(packageRoot(), ".cache", "qemu-7.2");
  const program = join(folder, "usr", "bin", "qemu-system-x86_64");
  // its own firmware, and the PC BIOS of whichever QEMU is installed
  const firmware = [join(folder, "usr", "share", "qemu"), "/usr/share/seabios"];
  return existsSync(program) ? [program, ...firmware.flatMap((part) => ["-L", part])] : undefined;
}
