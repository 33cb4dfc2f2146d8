/**
 * The page kernels in AssemblyScript with SIMD. scripts/build-kernels.sh compiles them to generated/kernels.wasm, and
 * wasm-kernels.ts calls them. kernels.ts says what each kernel does. The plain twin of this file, which tests use
 * (test/support/plain-kernels.ts), does the same in code that is easy to read.
 *
 * Addresses and lengths have 32 bits, and addresses are unsigned. The module has no static data and no heap, and
 * touches only the memory that it is given. The width of a step (a line of 64 bytes, or two lines) is a result of
 * tuning: see test/bench/README.md.
 */

// @ts-ignore: a decorator of AssemblyScript
@inline const PAGE: usize = 4096;
// @ts-ignore
@inline const LINE: usize = 64;

export function isZero(page: usize): bool {
  const end = page + PAGE;
  for (let at = page; at < end; at += 128) {
    const low = v128.or(
      v128.or(v128.load(at), v128.load(at, 16)),
      v128.or(v128.load(at, 32), v128.load(at, 48)),
    );
    const high = v128.or(
      v128.or(v128.load(at, 64), v128.load(at, 80)),
      v128.or(v128.load(at, 96), v128.load(at, 112)),
    );
    if (v128.any_true(v128.or(low, high))) return false;
  }
  return true;
}

/** Folds the bits that differ anywhere in a line into one vector. */
// @ts-ignore
@inline
function foldedDifference(a: usize, b: usize): v128 {
  return v128.or(
    v128.or(v128.xor(v128.load(a), v128.load(b)), v128.xor(v128.load(a, 16), v128.load(b, 16))),
    v128.or(v128.xor(v128.load(a, 32), v128.load(b, 32)), v128.xor(v128.load(a, 48), v128.load(b, 48))),
  );
}

export function equal(a: usize, b: usize): bool {
  for (let offset: usize = 0; offset < PAGE; offset += 2 * LINE) {
    const low = foldedDifference(a + offset, b + offset);
    const high = foldedDifference(a + offset + LINE, b + offset + LINE);
    if (v128.any_true(v128.or(low, high))) return false;
  }
  return true;
}

export function copy(to: usize, from: usize, length: usize): void {
  memory.copy(to, from, length);
}

/** Returns one bit for each of 16 bytes, set where the bytes differ. */
// @ts-ignore
@inline
function differing16(a: usize, b: usize): u64 {
  return <u64>(<u32>i8x16.bitmask(i8x16.ne(v128.load(a), v128.load(b))));
}

/** Returns one bit for each of the 64 bytes of a line, set where the bytes differ; the first byte is bit 0. */
// @ts-ignore
@inline
function differing64(a: usize, b: usize): u64 {
  return differing16(a, b) | (differing16(a + 16, b + 16) << 16)
    | (differing16(a + 32, b + 32) << 32) | (differing16(a + 48, b + 48) << 48);
}

/**
 * Copies a run between places that do not overlap. Runs are short, so a call of memory.copy would cost more than the
 * copying. The last store may overlap the store before it, so that nothing beyond the run is read or written.
 */
// @ts-ignore
@inline
function copyRun(to: usize, from: usize, length: usize): void {
  if (length >= 16) {
    const last = length - 16;
    for (let offset: usize = 0; offset < last; offset += 16) v128.store(to + offset, v128.load(from + offset));
    v128.store(to + last, v128.load(from + last));
  } else if (length >= 8) {
    store<u64>(to, load<u64>(from));
    store<u64>(to + length - 8, load<u64>(from + length - 8));
  } else if (length >= 4) {
    store<u32>(to, load<u32>(from));
    store<u32>(to + length - 4, load<u32>(from + length - 4));
  } else {
    store<u8>(to, load<u8>(from));
    if (length > 1) {
      store<u8>(to + 1, load<u8>(from + 1));
      store<u8>(to + length - 1, load<u8>(from + length - 1));
    }
  }
}

/** Writes a count as QEMU's small ULEB128 (at most 14 bits). @returns the address after the count */
// @ts-ignore
@inline
function writeCount(to: usize, count: usize): usize {
  if (count < 0x80) {
    store<u8>(to, <u8>count);
    return to + 1;
  }
  store<u8>(to, <u8>(count | 0x80));
  store<u8>(to + 1, <u8>(count >> 7));
  return to + 2;
}

// @ts-ignore
@inline
function countLength(count: usize): usize {
  return count < 0x80 ? 1 : 2;
}

/**
 * Walks the page line by line. A line becomes 64 bits. `edges` has a bit where a byte differs and the byte before it
 * does not, or the other way round, so the walk goes from edge to edge, whatever bytes lie between them.
 */
export function encodeDelta(base: usize, current: usize, out: usize, limit: i32): i32 {
  const end = out + <usize>min<i32>(max<i32>(limit, 0), <i32>PAGE);
  let to = out;
  let equalFrom: usize = 0; // where the last run of equal bytes began
  let newFrom: usize = 0; // where the run of new bytes began, while the walk is `inside` one
  let inside: u64 = 0;
  for (let line: usize = 0; line < PAGE; line += LINE) {
    if (!inside && !v128.any_true(foldedDifference(base + line, current + line))) continue;
    const differing = differing64(base + line, current + line);
    let edges = differing ^ ((differing << 1) | inside);
    while (edges) {
      const edge = line + <usize>ctz(edges);
      edges &= edges - 1;
      if (!inside) {
        newFrom = edge;
      } else {
        const equals = newFrom - equalFrom;
        const news = edge - newFrom;
        if (to + countLength(equals) + countLength(news) + news > end) return -1;
        to = writeCount(writeCount(to, equals), news);
        copyRun(to, current + newFrom, news);
        to += news;
        equalFrom = edge;
      }
      inside ^= 1;
    }
    // the run is already too long to fit, so its end is not looked for
    if (inside && to + 2 + (line + LINE - newFrom) > end) return -1;
  }
  if (inside) {
    const equals = newFrom - equalFrom;
    const news = PAGE - newFrom;
    if (to + countLength(equals) + countLength(news) + news > end) return -1;
    to = writeCount(writeCount(to, equals), news);
    copyRun(to, current + newFrom, news);
    to += news;
  }
  return <i32>(to - out);
}

/**
 * Goes through a delta as QEMU's decoder does. Two bytes have to be left before each count, so that a count of two
 * bytes is never read beyond the end. Every count has at most 14 bits, so no sum here can wrap.
 */
// @ts-ignore
@inline
function walkDelta(page: usize, delta: usize, length: i32, apply: bool): i32 {
  if (<u32>length > <u32>PAGE) return -1;
  const end = delta + <usize>length;
  let at = delta;
  let covered: usize = 0;
  while (at < end) {
    if (at + 2 > end) return -1;
    let count: usize = load<u8>(at);
    if (count >= 0x80) {
      const high: usize = load<u8>(at, 1);
      if (high >= 0x80) return -1;
      count = (count & 0x7f) | (high << 7);
      if (count == 0 && at != delta) return -1;
      at += 2;
    } else {
      if (count == 0 && at != delta) return -1;
      at += 1;
    }
    covered += count;
    if (covered > PAGE || at + 2 > end) return -1;
    count = load<u8>(at);
    if (count >= 0x80) {
      const high: usize = load<u8>(at, 1);
      if (high >= 0x80) return -1;
      count = (count & 0x7f) | (high << 7);
      at += 2;
    } else {
      at += 1;
    }
    if (count == 0 || covered + count > PAGE || at + count > end) return -1;
    if (apply) copyRun(page + covered, at, count);
    covered += count;
    at += count;
  }
  return <i32>covered;
}

export function decodeDelta(page: usize, delta: usize, length: i32): i32 {
  return walkDelta(page, delta, length, true);
}

export function deltaIsValid(delta: usize, length: i32): bool {
  return length != 0 && walkDelta(0, delta, length, false) >= 0;
}

// XXH64: https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md
// @ts-ignore
@inline const PRIME1: u64 = 0x9E3779B185EBCA87;
// @ts-ignore
@inline const PRIME2: u64 = 0xC2B2AE3D27D4EB4F;
// @ts-ignore
@inline const PRIME3: u64 = 0x165667B19E3779F9;
// @ts-ignore
@inline const PRIME4: u64 = 0x85EBCA77C2B2AE63;
// @ts-ignore
@inline const PRIME5: u64 = 0x27D4EB2F165667C5;

// @ts-ignore
@inline
function round(lane: u64, input: u64): u64 {
  return rotl<u64>(lane + input * PRIME2, 31) * PRIME1;
}

// @ts-ignore
@inline
function mergeLane(hash: u64, lane: u64): u64 {
  return (hash ^ round(0, lane)) * PRIME1 + PRIME4;
}

export function checksum(from: usize, length: u32, out: usize): void {
  const end = from + <usize>length;
  let at = from;
  let hash: u64 = PRIME5;
  if (length >= 32) {
    let lane1: u64 = PRIME1 + PRIME2;
    let lane2: u64 = PRIME2;
    let lane3: u64 = 0;
    let lane4: u64 = 0 - PRIME1;
    for (const last = end - 32; at <= last; at += 32) {
      lane1 = round(lane1, load<u64>(at));
      lane2 = round(lane2, load<u64>(at, 8));
      lane3 = round(lane3, load<u64>(at, 16));
      lane4 = round(lane4, load<u64>(at, 24));
    }
    hash = rotl<u64>(lane1, 1) + rotl<u64>(lane2, 7) + rotl<u64>(lane3, 12) + rotl<u64>(lane4, 18);
    hash = mergeLane(mergeLane(mergeLane(mergeLane(hash, lane1), lane2), lane3), lane4);
  }
  hash += <u64>length;
  for (; at + 8 <= end; at += 8) hash = rotl<u64>(hash ^ round(0, load<u64>(at)), 27) * PRIME1 + PRIME4;
  if (at + 4 <= end) {
    hash = rotl<u64>(hash ^ (<u64>load<u32>(at) * PRIME1), 23) * PRIME2 + PRIME3;
    at += 4;
  }
  for (; at < end; at += 1) hash = rotl<u64>(hash ^ (<u64>load<u8>(at) * PRIME5), 11) * PRIME1;
  hash = (hash ^ (hash >> 33)) * PRIME2;
  hash = (hash ^ (hash >> 29)) * PRIME3;
  store<u64>(out, hash ^ (hash >> 32));
}
