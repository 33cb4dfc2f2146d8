/** Makes certificates by a test's own CA (scripts/test-ca.sh), and settings and securities of agents from them. */
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import type { TlsSecurity } from "../../shared/link/tls/security.ts";
import { type KeyMaterial, readCertificates, type TlsFiles } from "../../shared/runtime/files/certificates.ts";
import type { LogDestination } from "../../shared/runtime/log/log.ts";
import { createLogger } from "../../shared/runtime/log/log.ts";
import { packageRoot } from "../../shared/runtime/package-root.ts";

export class TestCa {
  readonly directory: string;

  constructor(directory: string) {
    this.directory = directory;
  }

  /** Makes certificates. @param args the arguments of the script, such as "alpha=127.0.0.1", and its flags */
  make(...args: string[]): this {
    const flags = args.filter((one) => one.startsWith("--"));
    const names = args.filter((one) => !one.startsWith("--"));
    execFileSync(join(packageRoot(), "scripts/test-ca.sh"), [...flags, this.directory, ...names], { stdio: "pipe" });
    return this;
  }

  files(name: string): TlsFiles {
    const path = (file: string): string => join(this.directory, file);
    return { ca: path("ca.pem"), certificate: path(`${name}.pem`), key: path(`${name}-key.pem`) };
  }

  material(name: string): KeyMaterial {
    return readCertificates(this.files(name));
  }
}

/** The flags of an agent, or of `ferry`, which has no lists of names. */
export const tlsFlags = (
  { ca, certificate, key }: TlsFiles,
  lists: { peers?: string; operators?: string } = {},
): readonly string[] => [
  `--tls-ca=${ca}`,
  `--tls-certificate=${certificate}`,
  `--tls-key=${key}`,
  ...Object.entries(lists).map(([name, names]) => `--tls-${name}=${names}`),
];

/** A log that keeps its lines. */
export class Lines implements LogDestination {
  readonly all: Record<string, unknown>[] = [];
  readonly log = createLogger("test", "info", this);
  private waiting: (() => void) | undefined;
  private looked = 0;

  write(line: string): void {
    this.all.push(JSON.parse(line));
    this.waiting?.();
  }

  /**
   * Waits for a line whose message fits, from the line after the one that the last call has found. Only the test's time
   * limit bounds the wait.
   */
  async next(message: RegExp): Promise<void> {
    for (;;) {
      while (this.looked < this.all.length) if (message.test(String(this.all[this.looked++]?.msg))) return;
      await new Promise<void>((resolve) => {
        this.waiting = resolve;
      });
    }
  }
}

/** Makes a TLS security whose certificates never change. */
export const security = (current: KeyMaterial, changes: Partial<TlsSecurity> = {}): TlsSecurity => ({
  kind: "tls",
  certificates: { current, onChange: () => () => {} },
  peers: ["alpha", "beta"],
  operators: ["operator"],
  shown: new Map(),
  ...changes,
});
