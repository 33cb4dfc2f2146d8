/** Tests `InFlight`: what a destination may acknowledge, and for how much its acknowledgements make room. */
import t from "tap";
import { LinkMeter } from "../../../agent-source/link/link-meter.ts";
import { InFlight } from "../../../agent-source/send/in-flight.ts";
import { FakeClock } from "../../support/fake-clock.ts";

function made() {
  const meter = new LinkMeter();
  meter.probed(125e6);
  const clock = new FakeClock();
  return { inFlight: new InFlight({ meter, clock, creditWindowBytes: 16 << 20 }), meter, clock };
}

t.test("what was never sent cannot be acknowledged, and an acknowledgement cannot be taken back", async (t) => {
  const { inFlight } = made();
  inFlight.sentBytes = 1000;
  const acknowledge = (sequence: number, bytes: number) => inFlight.acknowledge(sequence, bytes, 5);
  const refused = { code: "peer-invalid" };
  t.throws(() => acknowledge(6, 900), { ...refused, message: /frame 6 and 900 .* frame 0 and 0 .* is 5$/ });
  t.throws(() => acknowledge(-1, 0), refused);
  t.throws(() => acknowledge(5, 1001), { ...refused, message: /acknowledged 1001 bytes, but only 1000 were sent/ });
  acknowledge(5, 500);
  t.throws(() => acknowledge(5, 499), refused);
  t.throws(() => acknowledge(4, 500), refused);
  t.equal(inFlight.bytes, 500);
});

t.test("zero pages count as on their way until their frame is acknowledged", async (t) => {
  const { inFlight } = made();
  inFlight.sent(1, 40, 16_000);
  inFlight.sent(2, 1000, 0);
  inFlight.sent(3, 40, 500);
  t.equal(inFlight.sentBytes, 1080);
  t.equal(inFlight.zeroPages, 16_500);
  inFlight.acknowledge(2, 1040, 3);
  t.equal(inFlight.zeroPages, 500);
  inFlight.acknowledge(3, 1080, 3);
  t.equal(inFlight.zeroPages, 0);
});

t.test("what is being compressed takes room as well", async (t) => {
  const { inFlight } = made();
  inFlight.sentBytes = 1 << 20;
  t.ok(inFlight.hasRoom());
  inFlight.encodingBytes = 1 << 20;
  t.notOk(inFlight.hasRoom());
  inFlight.acknowledge(1, 1 << 20, 1);
  t.ok(inFlight.hasRoom());
});

t.test("beShallow resolves when only little is on its way, and the credit does not shrink by itself", async (t) => {
  const { inFlight, meter, clock } = made();
  inFlight.sentBytes = 2 << 20;
  let shallow = false;
  const told = inFlight.beShallow(65_536).then(() => {
    shallow = true;
  });
  await undefined;
  t.notOk(shallow);
  inFlight.acknowledge(1, 2 << 20, 1);
  await told;
  // half of the link is used, since the hosts do no more
  for (let turn = 2; turn < 100; turn++) {
    clock.jump(2);
    inFlight.sentBytes += 100_000;
    inFlight.encodingBytes = 1 << 20;
    inFlight.hasRoom();
    inFlight.encodingBytes = 0;
    inFlight.acknowledge(turn, inFlight.sentBytes, turn);
  }
  t.ok(meter.bytesPerSecond < 80e6, `${meter.bytesPerSecond} is what the credit lets through`);
  inFlight.encodingBytes = 250_000;
  t.ok(inFlight.hasRoom());
});

t.test("once the guest is under way, more may be on its way where the hosts are narrower than the link", async (t) => {
  const { inFlight, meter, clock } = made();
  void inFlight.beShallow(65_536);
  const most = (): number => {
    let bytes = 0;
    for (inFlight.encodingBytes = 0; inFlight.hasRoom(); inFlight.encodingBytes = bytes) bytes += 4096;
    inFlight.encodingBytes = 0;
    return bytes;
  };
  const carry = (bytesPerMs: number): void => {
    for (let turn = 0; turn < 30; turn++) {
      clock.jump(40);
      inFlight.sentBytes += 40 * bytesPerMs;
      inFlight.acknowledge(0, inFlight.sentBytes, 0);
    }
  };
  carry(60e3);
  const first = most();
  inFlight.isUnderWay = true;
  t.ok(most() > first + 100_000, `${most()} for ${first} bytes`);
  carry(124e3);
  t.ok(meter.isAtItsPeak);
  inFlight.isUnderWay = false;
  const full = most();
  inFlight.isUnderWay = true;
  t.equal(most(), full);
});
