/**
 * XXH64 with seed 0, written as its specification has it (github.com/Cyan4973/xxHash, doc/xxhash_spec.md). It is for
 * plain-kernels.ts only: each step on big integers makes garbage.
 */
const PRIME1 = 0x9e3779b185ebca87n;
const PRIME2 = 0xc2b2ae3d27d4eb4fn;
const PRIME3 = 0x165667b19e3779f9n;
const PRIME4 = 0x85ebca77c2b2ae63n;
const PRIME5 = 0x27d4eb2f165667c5n;

const wrap = (value: bigint): bigint => BigInt.asUintN(64, value);
const rotateLeft = (value: bigint, bits: bigint): bigint => wrap((value << bits) | (value >> (64n - bits)));
const round = (lane: bigint, input: bigint): bigint => wrap(rotateLeft(wrap(lane + input * PRIME2), 31n) * PRIME1);
const merge = (hash: bigint, lane: bigint): bigint => wrap((hash ^ round(0n, lane)) * PRIME1 + PRIME4);

/** Hashes the `length` bytes at `from`. */
export function xxh64(view: DataView, from: number, length: number): bigint {
  const stripesEnd = from + (length - (length % 32));
  let hash = length >= 32 ? hashStripes(view, from, stripesEnd) : PRIME5;
  hash = wrap(hash + BigInt(length));
  return mix(hashTail(hash, view, stripesEnd, from + length));
}

function hashStripes(view: DataView, from: number, end: number): bigint {
  let lane1 = wrap(PRIME1 + PRIME2);
  let lane2 = PRIME2;
  let lane3 = 0n;
  let lane4 = wrap(-PRIME1);
  for (let at = from; at < end; at += 32) {
    lane1 = round(lane1, view.getBigUint64(at, true));
    lane2 = round(lane2, view.getBigUint64(at + 8, true));
    lane3 = round(lane3, view.getBigUint64(at + 16, true));
    lane4 = round(lane4, view.getBigUint64(at + 24, true));
  }
  const joined = rotateLeft(lane1, 1n) + rotateLeft(lane2, 7n) + rotateLeft(lane3, 12n) + rotateLeft(lane4, 18n);
  return [lane1, lane2, lane3, lane4].reduce(merge, wrap(joined));
}

function hashTail(start: bigint, view: DataView, from: number, end: number): bigint {
  let hash = start;
  let at = from;
  for (; at + 8 <= end; at += 8)
    hash = wrap(rotateLeft(hash ^ round(0n, view.getBigUint64(at, true)), 27n) * PRIME1 + PRIME4);
  if (at + 4 <= end) {
    hash = wrap(rotateLeft(hash ^ wrap(BigInt(view.getUint32(at, true)) * PRIME1), 23n) * PRIME2 + PRIME3);
    at += 4;
  }
  for (; at < end; at++) hash = wrap(rotateLeft(hash ^ wrap(BigInt(view.getUint8(at)) * PRIME5), 11n) * PRIME1);
  return hash;
}

function mix(value: bigint): bigint {
  let hash = value;
  hash = wrap((hash ^ (hash >> 33n)) * PRIME2);
  hash = wrap((hash ^ (hash >> 29n)) * PRIME3);
  return hash ^ (hash >> 32n);
}
