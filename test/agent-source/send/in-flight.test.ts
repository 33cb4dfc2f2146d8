/** What a destination may acknowledge, and what that gives room for. */
import t from "tap";
import { LinkMeter } from "../../../agent-source/link/link-meter.ts";
import { InFlight } from "../../../agent-source/send/in-flight.ts";

function made() {
  const now = { ms: 1000 };
  const meter = new LinkMeter();
  meter.probed(125e6);
  const clock = { monotonicMs: () => now.ms, nowUs: () => 1000 * now.ms };
  return { flight: new InFlight({ meter, clock, creditWindowBytes: 16 << 20 }), meter, now };
}

t.test("what was never sent cannot be acknowledged, nor what was acknowledged be taken back", async (t) => {
  const { flight } = made();
  flight.sentBytes = 1000;
  const acknowledge = (sequence: number, bytes: number) => flight.acknowledge(sequence, bytes, 5);
  const refused = { code: "peer-invalid" };
  t.throws(() => acknowledge(6, 900), { ...refused, message: /acknowledged frame 6 after 0/ });
  t.throws(() => acknowledge(-1, 0), refused);
  t.throws(() => acknowledge(5, 1001), { ...refused, message: /acknowledged 1001 bytes of 1000/ });
  acknowledge(5, 500);
  t.throws(() => acknowledge(5, 499), refused);
  t.throws(() => acknowledge(4, 500), refused);
  t.equal(flight.bytes, 500);
});

t.test("zero pages are on their way until their frame is acknowledged", async (t) => {
  const { flight } = made();
  flight.sent(1, 40, 16_000);
  flight.sent(2, 1000, 0);
  flight.sent(3, 40, 500);
  t.equal(flight.sentBytes, 1080);
  t.equal(flight.zeroPages, 16_500);
  flight.acknowledge(2, 1040, 3);
  t.equal(flight.zeroPages, 500);
  flight.acknowledge(3, 1080, 3);
  t.equal(flight.zeroPages, 0);
});

t.test("what is being compressed takes room as well", async (t) => {
  const { flight } = made();
  flight.sentBytes = 1 << 20;
  t.ok(flight.hasRoom());
  flight.encodingBytes = 1 << 20;
  t.notOk(flight.hasRoom());
  flight.acknowledge(1, 1 << 20, 1);
  t.ok(flight.hasRoom());
});

t.test("that little is on its way is told when it is so, and a credit does not make itself smaller", async (t) => {
  const { flight, meter, now } = made();
  flight.sentBytes = 2 << 20;
  let shallow = false;
  const told = flight.beShallow(65_536).then(() => {
    shallow = true;
  });
  await undefined;
  t.notOk(shallow);
  flight.acknowledge(1, 2 << 20, 1);
  await told;
  // half of the link is used, since the hosts do not do more
  for (let turn = 2; turn < 100; turn++) {
    now.ms += 2;
    flight.sentBytes += 100_000;
    flight.encodingBytes = 1 << 20;
    flight.hasRoom();
    flight.encodingBytes = 0;
    flight.acknowledge(turn, flight.sentBytes, turn);
  }
  t.ok(meter.bytesPerSecond < 80e6, `${meter.bytesPerSecond} is what the credit lets through`);
  flight.encodingBytes = 250_000;
  t.ok(flight.hasRoom());
});

t.test("a guest that has got going lets more be on its way, where it is not the link that is narrow", async (t) => {
  const { flight, meter, now } = made();
  void flight.beShallow(65_536);
  const most = (): number => {
    let bytes = 0;
    for (flight.encodingBytes = 0; flight.hasRoom(); flight.encodingBytes = bytes) bytes += 4096;
    flight.encodingBytes = 0;
    return bytes;
  };
  const carry = (bytesPerMs: number): void => {
    for (let turn = 0; turn < 30; turn++) {
      now.ms += 40;
      flight.sentBytes += 40 * bytesPerMs;
      flight.acknowledge(0, flight.sentBytes, 0);
    }
  };
  carry(60e3);
  const first = most();
  flight.isUnderWay = true;
  t.ok(most() > first + 100_000, `${most()} for ${first} bytes`);
  carry(124e3);
  t.ok(meter.isAtItsPeak);
  flight.isUnderWay = false;
  const full = most();
  flight.isUnderWay = true;
  t.equal(most(), full);
});
