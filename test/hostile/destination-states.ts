/** Leads a destination into each of its states by honest ways, and out of the state again. */
import type { DestinationStateName } from "../../shared/protocol/destination-states.ts";
import type { StreamlessState, StreamState } from "./destination-table.ts";
import type { Attack, AttackedDestination } from "./hostile-source.ts";

type Reachable = StreamState | StreamlessState;

async function accept(attack: Attack): Promise<void> {
  const answer = await attack.handshake();
  if (answer.kind !== "contract") throw new Error(`refused: ${JSON.stringify(answer)}`);
}

async function receive(attack: Attack): Promise<void> {
  await accept(attack);
  await attack.connected();
  await attack.on.log.until(attack.id, "receiving");
  attack.begin();
  await attack.answered();
}

async function load(attack: Attack): Promise<void> {
  await receive(attack);
  attack.finish();
  await attack.hears("loaded");
}

async function refuse(attack: Attack): Promise<void> {
  await load(attack);
  void attack.settle("withdraw");
  await attack.on.log.until(attack.id, "withheld");
}

/** Goes a way until the migration is held as it enters a state. */
async function heldAt(attack: Attack, state: DestinationStateName, way: (attack: Attack) => unknown): Promise<void> {
  const { holds } = attack.on;
  holds.hold(state);
  // the way may go on after the migration is held, and what becomes of it then is not asked here
  const fails = new Promise<never>((_, reject) => void Promise.resolve(way(attack)).catch(reject));
  fails.catch(() => undefined);
  await Promise.race([holds.isHeld(), fails]);
}

const grant = async (attack: Attack): Promise<void> => {
  await load(attack);
  attack.send(attack.grant);
};

/** The way into each state. A new state does not compile without one. */
export const INTO: Readonly<Record<Reachable, (attack: Attack) => Promise<void>>> = {
  negotiating: (attack) => heldAt(attack, "negotiating", accept),
  staging: (attack) => heldAt(attack, "staging", accept),
  receiving: receive,
  loading: (attack) =>
    heldAt(attack, "loading", async () => {
      await receive(attack);
      attack.finish();
    }),
  loaded: load,
  owning: (attack) => heldAt(attack, "owning", grant),
  starting: (attack) => heldAt(attack, "starting", grant),
  refusing: (attack) => heldAt(attack, "refusing", refuse),
  withheld: refuse,
  discarding: (attack) =>
    heldAt(attack, "discarding", async () => {
      await receive(attack);
      attack.send({ kind: "failure", code: "cancelled", message: "no", refusedToken: Buffer.alloc(0) });
    }),
  arrived: async (attack) => {
    await grant(attack);
    await attack.hears("running");
    await attack.on.log.until(attack.id, "arrived");
  },
  lost: async (attack) => {
    await heldAt(attack, "starting", grant);
    attack.on.qemu.kill();
    attack.on.holds.release();
    await attack.on.log.until(attack.id, "lost");
  },
  discarded: async (attack) => {
    await receive(attack);
    attack.send({ kind: "failure", code: "cancelled", message: "no", refusedToken: Buffer.alloc(0) });
    await attack.on.log.until(attack.id, "discarded");
  },
  doubled: async (attack) => {
    await refuse(attack);
    attack.on.qemu.resume();
    await attack.on.log.until(attack.id, "doubled");
  },
  adopting: async (attack) => {
    await load(attack);
    attack.on.holds.hold("adopting");
    await attack.on.startAgain();
    await attack.on.holds.isHeld();
  },
};

/**
 * Lets a held migration go on, and brings it to an end by what a source may say. Its QEMU ends too.
 * @returns the final state
 */
export async function comeToAnEnd(attack: Attack, on: AttackedDestination): Promise<string> {
  on.holds.release();
  const ends = ["arrived", "lost", "discarded", "doubled"];
  // the stream may not be read any more, so the source says by a call that it keeps the guest
  if (!attack.states.some((one) => ends.includes(one))) {
    void attack.settle("kept").catch(() => undefined);
    attack.close();
  }
  const last = await on.log.until(attack.id, ...ends);
  if (on.qemu.isAlive) on.qemu.kill();
  return last;
}
