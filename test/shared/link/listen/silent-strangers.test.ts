/** Tests that a peer gets in whatever connections without a certificate do, by a real server of an agent. */
import { connect, type Socket } from "node:net";
import t from "tap";
import { eventually } from "../../../support/bounded.ts";
import { folder } from "../../../support/link-fixtures.ts";
import { security, TestCa } from "../../../support/tls.ts";
import { destination, shake as offerTo } from "../../../support/tls-servers.ts";

t.setTimeout(240_000);

const ca = new TestCa(folder(t)).make("alpha=127.0.0.1,localhost", "beta=127.0.0.1");

t.test("a known peer gets in while silent strangers take each place again that one of them has lost", async (t) => {
  const server = await destination(t, security(ca.material("alpha")));
  const mine = security(ca.material("beta"));
  const shake = async (): Promise<void> => {
    t.match(await offerTo(t, server.address, mine, { timeoutMs: 60_000 }), { kind: "refusals" });
  };
  // from now on the address is known as a peer's
  await shake();
  const silent = new Set<Socket>();
  let isOver = false;
  const open = (localAddress: string): void => {
    if (isOver) return;
    const socket = connect({ host: "127.0.0.1", port: server.port, localAddress });
    silent.add(socket);
    socket
      .on("error", () => undefined)
      .once("close", () => {
        silent.delete(socket);
        open(localAddress);
      });
  };
  t.teardown(() => {
    isOver = true;
    for (const socket of silent) socket.destroy();
  });
  for (let index = 0; index < 48; index++) open(`127.0.0.${2 + (index % 2)}`);
  // a stranger that is ended makes room for one that waits, so by then all places have been taken
  let ended = 0;
  for (const socket of silent) socket.once("close", () => ended++);
  await eventually(() => ended > 0 || undefined, { timeoutMs: 60_000, what: "the end of a stranger's connection" });
  for (let time = 0; time < 3; time++) await shake();
});
