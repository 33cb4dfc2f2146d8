/** Tests offers that are refused before anything is touched. */
import t from "tap";
import { DestinationAgent } from "../../../agent-destination/service/destination-agent.ts";
import type { DestinationAgentParts } from "../../../agent-destination/service/recovery.ts";
import { offer } from "../../support/link-fixtures.ts";

const log = { info: () => undefined, child: () => log };

t.test("an offer with the id of a migration that was here before does not touch its record", async (t) => {
  // the agent has only what is read before the refusal: to touch anything else would be a TypeError
  const parts = { log, journal: { read: async () => ({ kind: "running" }) } };
  const agent = new DestinationAgent(parts as unknown as DestinationAgentParts);
  const caller = { name: "alpha", names: ["alpha"], text: "a test" };
  await t.rejects(agent.handshake(offer, caller), { code: "refused", message: /already has a migration/ });
});
