/** Tests how the definition of a guest is read: what is filled in, what its digest covers, and what is refused. */
import { createHash } from "node:crypto";
import { writeFileSync } from "node:fs";
import t from "tap";
import { listGuests, loadGuest, parseGuest } from "../../../../shared/runtime/guest/guest-definition.ts";

const web = {
  name: "web",
  qmp: "{runtime}/web.qmp",
  command: [
    "qemu-system-x86_64",
    "-m",
    "512",
    "-qmp",
    "unix:{runtime}/web.qmp,server,wait=off",
    "-serial",
    "file:{runtime}/web.log",
  ],
};
const parse = (value: unknown, runtime = "/run/ferry") =>
  parseGuest("web", "/guests/web.json", typeof value === "string" ? value : JSON.stringify(value), runtime);

t.test("{runtime} is filled in everywhere, for this host", async (t) => {
  const guest = parse(web);
  t.equal(guest.qmp, "/run/ferry/web.qmp");
  t.same(guest.command.slice(3), [
    "-qmp",
    "unix:/run/ferry/web.qmp,server,wait=off",
    "-serial",
    "file:/run/ferry/web.log",
  ]);
});

t.test(
  "{guest} is the guest's own directory, in which the agents meet its QEMU when its monitor is there",
  async (t) => {
    const own = {
      ...web,
      qmp: "{guest}/web.qmp",
      command: ["qemu", "-qmp", "unix:{guest}/web.qmp,server=on,wait=off"],
    };
    const guest = parse(own);
    t.match(guest, { qmp: "/run/ferry-guests/web/web.qmp", directory: "/run/ferry-guests/web" });
    t.equal(guest.command[2], "unix:/run/ferry-guests/web/web.qmp,server=on,wait=off");
    t.equal(parse(own, "/elsewhere").digest, guest.digest);
    t.equal(parse(web).directory, "/run/ferry");
    for (const qmp of ["/srv/web.qmp", "{guest}/below/web.qmp", "{runtime}/web.qmp"])
      t.equal(parse({ ...own, qmp }).directory, "/run/ferry", qmp);
    // the longest of the agents' sockets, ID.monitor-2, has 22 characters
    const long = `/${"r".repeat(107 - 1 - "-guests/web/".length - 22)}`;
    t.equal(parse(own, long).directory, `${long}-guests/web`);
    t.throws(() => parse(own, `${long}r`), {
      code: "configuration",
      message: /\{guest\} is too long for the agents' sockets/,
    });
  },
);

t.test("the digest is made of the canonical JSON, before {runtime} is filled in", async (t) => {
  const expected = createHash("sha256")
    .update(JSON.stringify({ command: web.command, name: "web", qmp: web.qmp }))
    .digest("hex");
  t.equal(parse(web).digest, expected);
  t.equal(parse(web, "/elsewhere").digest, expected);
  t.equal(parse(JSON.stringify({ command: web.command, qmp: web.qmp, name: "web" }, null, 4)).digest, expected);
  t.not(parse({ ...web, command: [...web.command, "-nodefaults"] }).digest, expected);
  t.not(parse({ ...web, qmp: "/run/ferry/web.qmp" }).digest, expected);
});

t.test("the peers of a guest are this host's own matter, and not part of the digest", async (t) => {
  t.equal(parse(web).peers, undefined);
  for (const peers of [[], ["alpha.example", "192.0.2.1", "fe80::1"]]) {
    t.same(parse({ ...web, peers }).peers, peers);
    t.equal(parse({ ...web, peers }).digest, parse(web).digest);
  }
  for (const peers of ["alpha", {}, null, [5], [""], ["*.example"], ["a b"], ["x".repeat(254)], [["alpha"]]])
    t.throws(() => parse({ ...web, peers }), { code: "configuration", message: /"peers" must be a list/ });
});

t.test("all mistakes in a definition are reported at once", async (t) => {
  const fault = t.throws(
    () => parse({ name: "db", qmp: "web.qmp", command: ["qemu", "-S", "-incoming", "defer"], memory: 1 }),
    { code: "configuration" },
  );
  for (const part of [
    /"memory" is not a key/,
    /"name" must be "web"/,
    /absolute path/,
    /not have -incoming/,
    /not have -S/,
  ])
    t.match((fault as Error).message, part);
});

t.test("a file that is no definition gives a fault that names the file", async (t) => {
  const bad: unknown[] = [
    "",
    "[]",
    "null",
    '"web"',
    { ...web, command: [] },
    { ...web, command: [""] },
    { ...web, command: "qemu" },
    { ...web, command: ["qemu", 5] },
    { name: "web", qmp: web.qmp },
    { ...web, qmp: 5 },
    { ...web, qmp: "" },
    { ...web, qmp: `/${"x".repeat(107)}` },
    " ".repeat((1 << 20) + 1),
  ];
  for (const value of bad) t.throws(() => parse(value), { code: "configuration", message: /\/guests\/web\.json/ });
});

t.test("guests are found by name, and one bad file does not hide the others", async (t) => {
  const directory = t.testdir({
    "web.json": JSON.stringify(web),
    "bad.json": "{",
    "notes.txt": "not a guest",
  });
  const places = { guestsDirectory: directory, runtimeDirectory: "/run/ferry" };
  t.equal((await loadGuest("web", places)).name, "web");
  t.match(await listGuests(places), [
    { kind: "unreadable", name: "bad", fault: { code: "configuration" } },
    { kind: "guest", definition: { name: "web" } },
  ]);
  writeFileSync(`${directory}/.json`, "{}");
  t.match(await listGuests(places), [{ kind: "unreadable", name: "" }, {}, {}]);
});

t.test("an unknown guest, a name that is a path and a missing directory are told apart", async (t) => {
  const places = { guestsDirectory: t.testdir({}), runtimeDirectory: "/run/ferry" };
  await t.rejects(loadGuest("web", places), { code: "guest-unknown", advice: /web\.json/ });
  for (const name of ["../web", "a/b", "", ".", "..", "x".repeat(65), "a b"])
    await t.rejects(loadGuest(name, places), { code: "invalid-argument" }, name);
  await t.rejects(listGuests({ ...places, guestsDirectory: "/nowhere/at/all" }), { code: "configuration" });
});
