/** Offers that are refused before anything is touched. */
import t from "tap";
import { DestinationAgent, type DestinationAgentParts } from "../../agent-destination/destination-agent.ts";
import { offer } from "../support/link-fixtures.ts";

/** No more than what is looked at before a refusal: whatever else were touched would be a TypeError. */
const agent = (migrationsMax: number, record?: object): DestinationAgent =>
  new DestinationAgent({
    config: { migrationsMax },
    journal: { read: async () => record },
  } as unknown as DestinationAgentParts);

t.test("a migration more than there may be is refused before anything is touched", async (t) => {
  await t.rejects(agent(0).handshake(offer), { code: "busy", message: /0 migrations under way/, advice: /Wait/ });
});

t.test("an offer with the id of a migration that was here before does not touch its record", async (t) => {
  await t.rejects(agent(4, { kind: "running" }).handshake(offer), { code: "refused", message: /was here before/ });
});
