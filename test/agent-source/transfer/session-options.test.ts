/** Tests how a session's slots are divided among pending pages, bases and the reserve, for each strategy. */
import t from "tap";
import { schedulerOptions } from "../../../agent-source/transfer/session-options.ts";
import type { Strategy } from "../../../shared/protocol/messages.ts";
import { loadSourceConfig } from "../../../shared/runtime/config/config.ts";
import { contract } from "../../support/frames.ts";

const config = loadSourceConfig(["--memory-arena=64MiB", "--memory-base-cache=256MiB"], {});
const ARENA_PAGES = 16384;
const BASE_PAGES = 65536;

const optionsOf = (strategy: Strategy, postcopy: boolean, codecs = contract.codecs) =>
  schedulerOptions({
    cx: { config, call: { options: { reorder: true } } },
    ramBlocks: contract.ramBlocks,
    contract: { ...contract, strategy, postcopy, codecs },
  });

t.test("precopy and hybrid keep bases where deltas were agreed on", async (t) => {
  for (const strategy of ["precopy", "hybrid"] as const) {
    t.equal(optionsOf(strategy, strategy === "hybrid", ["xbzrle", "zstd"]).delta, true);
    t.equal(optionsOf(strategy, strategy === "hybrid", ["zstd"]).delta, false);
  }
  t.equal(optionsOf("precopy", false).reserveSlots, 0, "only post-copy has slots in reserve");
  t.equal(optionsOf("hybrid", true).reserveSlots, ARENA_PAGES / 4);
});

t.test("post-copy keeps no bases, and their slots are there for pending pages", async (t) => {
  const { delta, pendingSlots, reserveSlots } = optionsOf("postcopy", true, ["xbzrle", "zstd"]);
  t.equal(delta, false);
  t.equal(pendingSlots, ARENA_PAGES);
  t.equal(reserveSlots, BASE_PAGES);
});
