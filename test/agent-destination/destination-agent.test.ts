/** Offers that are refused before anything is touched. */
import t from "tap";
import { DestinationAgent } from "../../agent-destination/destination-agent.ts";
import type { DestinationAgentParts } from "../../agent-destination/recovery.ts";
import { offer } from "../support/link-fixtures.ts";

/** No more than what is looked at before a refusal: whatever else were touched would be a TypeError. */
const agent = (migrationsMax: number, record?: object): DestinationAgent =>
  new DestinationAgent({
    config: { migrationsMax },
    log: { info: () => undefined },
    journal: { read: async () => record },
  } as unknown as DestinationAgentParts);

t.test("a migration more than there may be is refused before anything is touched", async (t) => {
  await t.rejects(agent(0).handshake(offer, "a test"), {
    code: "busy",
    message: /0 migrations under way/,
    advice: /Wait/,
  });
});

t.test("an offer with the id of a migration that was here before does not touch its record", async (t) => {
  await t.rejects(agent(4, { kind: "running" }).handshake(offer, "a test"), {
    code: "refused",
    message: /was here before/,
  });
});
