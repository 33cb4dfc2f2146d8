/** Tests the names under which the operator sees what the agents agreed on. */
import t from "tap";
import type { SourceContext } from "../../../agent-source/migration/source-context.ts";
import { negotiatedView } from "../../../agent-source/report/negotiated-view.ts";
import type { Contract } from "../../../shared/protocol/messages.ts";
import type { MigrateOptions } from "../../../shared/protocol/report.ts";
import type { SourceFacts } from "../../../shared/qemu/inspect/preflight.ts";
import { guest } from "../../support/handshake-fixtures.ts";
import { call } from "../../support/link-fixtures.ts";

const contract: Contract = {
  protocolVersion: 2,
  codecs: ["xbzrle", "zstd"],
  frameBytes: 262_144,
  creditWindowBytes: 1 << 24,
  destinationQemuVersion: { major: 10, minor: 1, micro: 0 },
  destinationFreeMemoryBytes: 3 * 2 ** 30,
  followUpMs: 30_000,
  ramBlocks: guest.ramBlocks,
  strategies: ["stop-and-copy", "precopy", "postcopy", "hybrid"],
  strategy: "precopy",
  postcopy: false,
  onDeadline: "force",
  postcopyObstacle: "",
  comparesDisks: true,
  warnings: [],
  measuresLink: false,
};
const facts: SourceFacts = { ...guest, refusals: [], postcopyRefusals: [], verifyRefusals: [] };

interface Given {
  readonly terms?: Partial<Contract>;
  readonly options?: Partial<MigrateOptions>;
  readonly against?: string;
  readonly zstdWorkers?: number;
}

function view({ terms, options, against, zstdWorkers = 2 }: Given = {}): Record<string, string> {
  const cx = {
    call: { ...call, options: { ...call.options, strategy: "auto", verify: false, compression: "auto", ...options } },
    chosenBecause: "",
    config: { memory: { baseCacheBytes: 256 << 20, arenaBytes: 64 << 20 }, transfer: { zstdWorkers } },
    limits: {},
  } as unknown as SourceContext;
  const postcopyRefusals = against === undefined ? [] : [{ code: "postcopy-unavailable", message: against }];
  return negotiatedView({ ...contract, ...terms }, { ...facts, postcopyRefusals }, cx);
}

t.test("each term that was agreed on has a name", async (t) => {
  t.match(view(), {
    "protocol version": "2",
    "source QEMU": "10.0.2",
    "destination QEMU": "10.1.0",
    "machine type": "pc-q35-8.1",
    "CPU model": "qemu64-x86_64-cpu",
    memory: "512 MiB in 1 RAM blocks",
    "destination free memory": "3072 MiB",
    strategy: "precopy (auto)",
    strategies: "stop-and-copy, precopy, postcopy, hybrid",
    codecs: "xbzrle, zstd",
    "base cache": "256 MiB",
    arena: "64 MiB",
    "frame size": "262144 B",
    "credit window": "16777216 B",
    "bandwidth cap": "1000000000 B/s",
    "downtime target": "250 ms",
    deadline: "60000 ms, then force",
    verify: "no",
  });
  t.equal(view({ options: { strategy: "precopy" } }).strategy, "precopy");
});

t.test("the view says why there is no post-copy, or what post-copy risks", async (t) => {
  const postcopy = (given: Given): string | undefined => view(given)["post-copy"];
  const none = ["stop-and-copy", "precopy"] as const;
  t.equal(postcopy({ options: { strategy: "precopy" } }), "possible, off");
  t.match(postcopy({ terms: { postcopy: true } }), /^follows where precopy has no end .*--robust excludes it/);
  t.equal(postcopy({ terms: { postcopy: true }, options: { robust: true } }), "not with --robust");
  t.match(postcopy({ terms: { strategy: "hybrid", postcopy: true } }), /^on in both QEMUs; .*if either host is lost/);
  t.equal(postcopy({ terms: { strategies: ["precopy"] }, options: { strategy: "precopy" } }), "not asked for");
  t.equal(postcopy({ terms: { strategies: none }, options: { verify: true } }), "not with --verify");
  t.equal(postcopy({ terms: { strategies: none, postcopyObstacle: "No userfaultfd" } }), "no: No userfaultfd");
  t.equal(postcopy({ terms: { strategies: none }, against: "Shared" }), "no: Shared");
});

t.test("what is off is shown as off, with the setting that switches it off", async (t) => {
  t.equal(view()["zstd level"], "follows the link");
  t.equal(view({ options: { compression: -20 } })["zstd level"], "-20");
  t.equal(view({ terms: { codecs: [] } })["zstd level"], "off");
  t.equal(view({ zstdWorkers: 0 })["zstd level"], "off (transfer.zstdWorkers)");
  t.match(view({ terms: { codecs: [] } }), { codecs: "none", "base cache": "none" });
  t.match(view({ options: { deadlineMs: 0, bandwidthBytesPerSecond: 0 } }), {
    deadline: "none",
    "bandwidth cap": "none",
  });
});
