/** Tests the tables of guests, migrations and heat. */
import t from "tap";
import { guestsText, heatMapText, migrationsText } from "../../cli/tables.ts";
import { view } from "../support/cli-fixtures.ts";

t.test("guests are shown as a table", async (t) => {
  const guest = {
    name: "web",
    state: "running",
    detail: "",
    qemuVersion: "10.0.2",
    machineType: "pc-q35-10.0",
    migrationId: "",
    definitionDigest: "0123456789abcdef",
  };
  t.equal(
    guestsText([guest, { ...guest, name: "database", state: "off", qemuVersion: "", machineType: "" }]),
    `GUEST     STATE    QEMU    MACHINE      DEFINITION    MIGRATION  DETAIL
web       running  10.0.2  pc-q35-10.0  0123456789ab
database  off                           0123456789ab
`,
  );
  t.match(guestsText([]), /guests\.directory/);
});

t.test("migrations are shown as a table", async (t) => {
  t.equal(
    migrationsText([view()]),
    `MIGRATION  GUEST  PEER            STATUS   STARTED                   TOOK    COPIED
m-1        web    to host-b:7412  copying  2026-01-02T03:04:05.000Z  12.3 s  52%
`,
  );
  t.equal(
    migrationsText([view({ source: "host-a:7411", status: "moved" })]),
    `MIGRATION  GUEST  PEER              STATUS   STARTED                   TOOK    COPIED
m-1        web    from host-a:7411  arrived  2026-01-02T03:04:05.000Z  12.3 s
`,
    "a migration that comes to the agent's host has a source",
  );
  t.match(migrationsText([]), /no migration/);
});

t.test("a guest that runs at both hosts comes first in the table of migrations", async (t) => {
  const text = migrationsText([view(), view({ id: "m-2", guest: "db", status: "doubled" })]);
  t.match(text, /^!!! db RUNS AT BOTH HOSTS[^\n]*m-2\)\n!!! [^\n]*\n!!! FIRST stop one of the two [^\n]*\nMIGRATION/);
  t.match(text, /^m-2 +db +to host-b:7412 +RUNS AT BOTH HOSTS/m);
});

t.test("a heat map is as wide as the terminal", async (t) => {
  const cells = Uint8Array.from({ length: 20 }, (_, index) => Math.min(255, index * 14));
  t.equal(
    heatMapText([{ name: "pc.ram", pagesPerCell: 512, cells }], 12),
    "pc.ram: 20 cells of 2 MiB, ▁ cold to █ hot\n  ▁▁▁▂▂▃▃▄▄▄\n  ▅▅▆▆▇▇████\n",
  );
  t.match(heatMapText([], 80), /Nothing/);
});
