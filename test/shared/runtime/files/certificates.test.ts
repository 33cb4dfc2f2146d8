/** Tests the files of TLS: what is wrong with them is named, and files that change are read again. */
import { chmodSync, copyFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t, { type Test } from "tap";
import { Certificates, readCertificates, type TlsFiles } from "../../../../shared/runtime/files/certificates.ts";
import { FakeClock } from "../../../support/fake-clock.ts";
import { folder } from "../../../support/link-fixtures.ts";
import { Lines, TestCa } from "../../../support/tls.ts";

const ca = new TestCa(folder(t)).make("alpha", "beta").make("--expired", "late").make("--days=2", "soon");

t.test("files that fit together are read", async (t) => {
  const { own } = readCertificates(ca.files("alpha"));
  t.equal(own.subjectAltName, "DNS:alpha");
});

t.test("a fault names the setting and the file", async (t) => {
  const directory = folder(t);
  const file = (name: string, contents: string): string => {
    writeFileSync(join(directory, name), contents);
    return join(directory, name);
  };
  const alpha = ca.files("alpha");
  const garbage = file("garbage.pem", "no PEM at all");
  const damaged = file("damaged.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
  const cases: readonly (readonly [changes: Partial<TlsFiles>, message: RegExp])[] = [
    [{ ca: "/nowhere/ca.pem" }, /^tls\.ca \/nowhere\/ca\.pem cannot be read: ENOENT/],
    [{ key: "/nowhere/key.pem" }, /^tls\.key \/nowhere\/key\.pem cannot be read/],
    [{ certificate: directory }, /^tls\.certificate \/\S+ cannot be read: EISDIR/],
    [{ ca: garbage }, /^tls\.ca \/\S+garbage\.pem holds no certificate in PEM form$/],
    [{ certificate: garbage }, /^tls\.certificate \/\S+garbage\.pem holds no certificate/],
    [{ certificate: alpha.key }, /^tls\.certificate \/\S+alpha-key\.pem holds no certificate/],
    [{ ca: damaged }, /^tls\.ca \/\S+damaged\.pem has a damaged certificate: /],
    [{ key: garbage }, /^tls\.key \/\S+garbage\.pem holds no private key/],
    [{ key: ca.files("beta").key }, /^tls\.key \/\S+beta-key\.pem is not the key of tls\.certificate \/\S+alpha\.pem$/],
  ];
  for (const [changes, message] of cases)
    t.throws(() => readCertificates({ ...alpha, ...changes }), { code: "configuration", message, advice: /PEM/ });
  const names = { ca: "--tls-ca", certificate: "--tls-certificate", key: "--tls-key" };
  t.throws(() => readCertificates({ ...alpha, key: garbage }, names), { message: /^--tls-key \// });
});

t.test("a key that every user of the host may read is refused, and one that a group may read is not", async (t) => {
  const { files, put } = watched(t);
  put("alpha");
  for (const mode of [0o644, 0o604, 0o601, 0o666]) {
    chmodSync(files.key, mode);
    t.throws(() => readCertificates(files), {
      code: "configuration",
      message: new RegExp(`^tls\\.key /\\S+ has mode 0${mode.toString(8)}: every user of this host may use it$`),
      advice: /^chmod o-rwx \/\S+; if others may have read it, make a new key/,
    });
  }
  for (const mode of [0o400, 0o600, 0o640]) {
    chmodSync(files.key, mode);
    t.equal(readCertificates(files).own.subjectAltName, "DNS:alpha", mode.toString(8));
  }
});

t.test("a certificate that has expired, or soon will, is logged", async (t) => {
  const { log, all } = new Lines();
  for (const name of ["late", "soon", "alpha"]) new Certificates(ca.files(name), log).close();
  t.match(all, [
    { level: "error", msg: /IT HAS EXPIRED/, file: ca.files("late").certificate },
    { level: "warn", msg: /expires within 2 days/ },
    { level: "info", names: "DNS:alpha", until: / GMT$/ },
  ]);
});

/** Makes certificates whose files a test replaces. */
function watched(t: Test) {
  const directory = folder(t);
  const files = { ca: join(directory, "ca"), certificate: join(directory, "certificate"), key: join(directory, "key") };
  const put = (name: string): void => {
    for (const one of ["key", "certificate", "ca"] as const) {
      copyFileSync(ca.files(name)[one], `${files[one]}.new`);
      renameSync(`${files[one]}.new`, files[one]);
    }
  };
  put("alpha");
  const lines = new Lines();
  const clock = new FakeClock();
  const certificates = new Certificates(files, lines.log, clock);
  t.teardown(() => certificates.close());
  /** Lets the files be looked at, and waits for the line that tells what was found. */
  const found = async (message: RegExp): Promise<void> => {
    await clock.advance(5000);
    await lines.next(message);
  };
  return { files, put, lines, certificates, clock, found };
}

t.test("changed files are read again, and a listener is told", async (t) => {
  const { put, certificates, lines, clock } = watched(t);
  const told = new Promise<string | undefined>((resolve) => {
    certificates.onChange(({ own }) => resolve(own.subjectAltName));
  });
  put("beta");
  await clock.advance(5000);
  t.equal(await told, "DNS:beta");
  t.equal(certificates.current.own.subjectAltName, "DNS:beta");
  t.match(lines.all.at(-1), { level: "info", msg: /read again/, names: "DNS:beta" });
});

t.test("broken new files are logged once each, and the old files stay in use", async (t) => {
  const { files, put, certificates, lines, found } = watched(t);
  const errors = (): Record<string, unknown>[] => lines.all.filter(({ level }) => level === "error");
  writeFileSync(files.certificate, "half a certifi");
  await found(/cannot be used/);
  t.match(errors(), [{ fault: { message: /^tls\.certificate .* holds no certificate/ } }]);
  t.equal(certificates.current.own.subjectAltName, "DNS:alpha");
  rmSync(files.certificate);
  await found(/cannot be used/);
  t.match(errors()[1], { fault: { message: /^tls\.certificate .* cannot be read: ENOENT/ } });
  put("alpha");
  await found(/again those in use/);
  t.equal(errors().length, 2, "each fault is logged once");
  put("beta");
  await found(/read again/);
  t.equal(certificates.current.own.subjectAltName, "DNS:beta");
});

t.test(
  "a key that cannot be read is named",
  { skip: process.getuid?.() === 0 ? "root reads everything" : false },
  async (t) => {
    const files = { ...ca.files("alpha"), key: join(folder(t), "key") };
    copyFileSync(ca.files("alpha").key, files.key);
    chmodSync(files.key, 0);
    t.throws(() => readCertificates(files), { message: /^tls\.key .* cannot be read: EACCES/ });
  },
);
