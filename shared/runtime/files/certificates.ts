/**
 * Reads the files of mutual TLS, checks them as a whole, and reads them again when they change. The files that were
 * last found good stay in use: a broken new file is logged, and nothing else happens.
 */
import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createSecureContext, type SecureContext } from "node:tls";
import { MigrationFault } from "../../fault.ts";
import { type Clock, systemClock, type Timer } from "../clock.ts";
import type { Logger } from "../log/log.ts";
import { OTHERS } from "./private-directory.ts";

/** Paths of PEM files. */
export interface TlsFiles {
  /** Certificates of the CAs that sign the peers' certificates. */
  readonly ca: string;
  /** This process's own certificate, then the certificates between it and the CA. */
  readonly certificate: string;
  readonly key: string;
}

/** The contents of three files that fit together. */
export interface KeyMaterial {
  readonly ca: Buffer;
  readonly certificate: Buffer;
  readonly key: Buffer;
  /** This process's own certificate. */
  readonly own: X509Certificate;
  /** The context for connections that this process opens, with TLS 1.3. */
  readonly context: SecureContext;
}

/** What messages call the files: the names of the settings or options that name them. */
export type TlsNames = Readonly<Record<keyof TlsFiles, string>>;
/** The names of an agent's settings. */
const TLS_KEYS: TlsNames = { ca: "tls.ca", certificate: "tls.certificate", key: "tls.key" };

type Contents = Readonly<Record<keyof TlsFiles, Buffer>>;

export const TLS_VERSION = "TLSv1.3";
/**
 * How often the files are looked at, milliseconds. They are not watched, because they may be links, be replaced by a
 * rename, or be on a network file system.
 */
const POLL_MS = 5000;
const DAY_MS = 86_400_000;
/** A certificate with less than this time left when it is read, milliseconds, is logged as a warning. */
const EXPIRES_SOON_MS = 7 * DAY_MS;

/** Reads the files once. @throws MigrationFault `configuration` that names the setting and the file */
export function readCertificates(files: TlsFiles, names: TlsNames = TLS_KEYS): KeyMaterial {
  const read = (one: keyof TlsFiles): Buffer => {
    try {
      return readFileSync(files[one]);
    } catch (thrown) {
      throw unreadable(files, names, one, thrown);
    }
  };
  return check(files, names, { ca: read("ca"), certificate: read("certificate"), key: read("key") });
}

/** The certificates of a process that lives long: read again when the files change. */
export class Certificates {
  private readonly files: TlsFiles;
  private readonly log: Logger;
  private readonly clock: Clock;
  private readonly timer: Timer;
  private readonly listeners = new Set<(material: KeyMaterial) => void>();
  private material: KeyMaterial;
  /**
   * What the last look found, good or not: the contents of the files, or the message that says why they cannot be read.
   * The next look logs nothing when it finds the same, so a broken file is logged once.
   */
  private seen: Contents | string;

  /** @throws MigrationFault `configuration` when the files cannot be used as they are now */
  constructor(files: TlsFiles, log: Logger, clock: Clock = systemClock) {
    this.files = files;
    this.log = log;
    this.clock = clock;
    this.material = readCertificates(files);
    this.seen = this.material;
    this.told(this.material, "certificate read");
    let looking = false;
    this.timer = clock.every(POLL_MS, () => {
      if (looking) return;
      looking = true;
      void this.look().finally(() => {
        looking = false;
      });
    });
    this.timer.unref();
  }

  get current(): KeyMaterial {
    return this.material;
  }

  /** Calls the listener each time when new files are in use. @returns a function that removes the listener */
  onChange(listener: (material: KeyMaterial) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  close(): void {
    this.clock.cancel(this.timer);
    this.listeners.clear();
  }

  private async look(): Promise<void> {
    try {
      const found = await this.readAll();
      if (typeof this.seen !== "string" && same(found, this.seen)) return;
      this.seen = found;
      if (same(found, this.material)) {
        this.log.info("the certificate files are again those in use");
        return;
      }
      this.material = check(this.files, TLS_KEYS, found);
      this.told(this.material, "certificate read again: new connections use it");
      for (const listener of this.listeners) listener(this.material);
    } catch (thrown) {
      const fault = MigrationFault.from(thrown);
      // files that cannot be read have no contents to compare, so the messages are compared
      const unread = fault.cause !== undefined && fault.message === this.seen;
      if (fault.cause !== undefined) this.seen = fault.message;
      if (!unread)
        this.log.error({ fault }, "the changed certificate files cannot be used; the ones before stay in use");
    }
  }

  private async readAll(): Promise<Contents> {
    const read = (one: keyof TlsFiles): Promise<Buffer> =>
      readFile(this.files[one]).catch((thrown: unknown) => {
        throw unreadable(this.files, TLS_KEYS, one, thrown);
      });
    const [ca, certificate, key] = await Promise.all([read("ca"), read("certificate"), read("key")]);
    return { ca, certificate, key };
  }

  private told({ own }: KeyMaterial, what: string): void {
    const line = { file: this.files.certificate, subject: own.subject, names: own.subjectAltName, until: own.validTo };
    const leftMs = Date.parse(own.validTo) - this.clock.nowUs() / 1000;
    if (leftMs < 0) this.log.error(line, `${what}; IT HAS EXPIRED: the peers refuse it`);
    else if (leftMs < EXPIRES_SOON_MS)
      this.log.warn(line, `${what}; it expires within ${Math.ceil(leftMs / DAY_MS)} days`);
    else this.log.info(line, what);
  }
}

const same = (a: Contents, b: Contents): boolean =>
  a.ca.equals(b.ca) && a.certificate.equals(b.certificate) && a.key.equals(b.key);

function check(files: TlsFiles, names: TlsNames, { ca, certificate, key }: Contents): KeyMaterial {
  parseCertificates(ca, files, names, "ca");
  const own = parseCertificates(certificate, files, names, "certificate");
  if (!own.checkPrivateKey(parseKey(key, files, names)))
    throw unusable(`${names.key} ${files.key} is not the key of ${names.certificate} ${files.certificate}`);
  checkKeyMode(files, names);
  try {
    const context = createSecureContext({ ca, cert: certificate, key, minVersion: TLS_VERSION });
    return { ca, certificate, key, own, context };
  } catch (thrown) {
    throw unusable(`${names.certificate} ${files.certificate} cannot be used: ${textOf(thrown)}`);
  }
}

/** Parses all certificates of a file. @returns the first one */
function parseCertificates(pem: Buffer, files: TlsFiles, names: TlsNames, which: keyof TlsFiles): X509Certificate {
  const blocks = pem.toString("latin1").match(/-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g) ?? [];
  try {
    const [first] = blocks.map((block) => new X509Certificate(block));
    if (first !== undefined) return first;
  } catch (thrown) {
    throw unusable(`${names[which]} ${files[which]} has a damaged certificate: ${textOf(thrown)}`);
  }
  throw unusable(`${names[which]} ${files[which]} holds no certificate in PEM form`);
}

function parseKey(pem: Buffer, files: TlsFiles, names: TlsNames): KeyObject {
  try {
    return createPrivateKey(pem);
  } catch (thrown) {
    throw unusable(
      `${names.key} ${files.key} holds no private key in PEM form without a passphrase: ${textOf(thrown)}`,
    );
  }
}

/**
 * Refuses a key on which every user of this host has a right: with the key, a user can pass for this host to all other
 * hosts. The group may be given the right to read the key on purpose.
 */
function checkKeyMode({ key }: TlsFiles, names: TlsNames): void {
  const mode = statSync(key).mode & 0o7777;
  if ((mode & OTHERS) === 0) return;
  throw new MigrationFault(
    "configuration",
    `${names.key} ${key} has mode ${mode.toString(8).padStart(4, "0")}: every user of this host may use it`,
    { advice: `chmod o-rwx ${key}; if others may have read it, make a new key and a new certificate` },
  );
}

function unreadable(files: TlsFiles, names: TlsNames, which: keyof TlsFiles, thrown: unknown): MigrationFault {
  return new MigrationFault("configuration", `${names[which]} ${files[which]} cannot be read: ${textOf(thrown)}`, {
    cause: thrown,
    advice: "Name a file in PEM form that the user of this process may read",
  });
}

const unusable = (message: string): MigrationFault =>
  new MigrationFault("configuration", message, {
    advice:
      "tls.ca, tls.certificate and tls.key are PEM files that belong together; scripts/test-ca.sh makes some to try",
  });

const textOf = (thrown: unknown): string => (thrown instanceof Error ? thrown.message : String(thrown));
