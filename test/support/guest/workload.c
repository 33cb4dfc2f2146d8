/*
 * The test guest's workload. It dirties memory at a given rate, checks its own memory all the time, and reports on the
 * serial console.
 *
 * Every word of every page is a pure function of (page number, version of the page, word number). So nothing has to be
 * remembered but a version for each page, and the guest itself sees a page that arrives stale, torn or wrong.
 *
 * Its settings come from the kernel command line (settings.h).
 *
 * It is not a benchmark of the guest. Under TCG a page costs some microseconds, so a whole page is checked only over
 * several visits (ferry.sample words in each visit, and the changed words in every visit), and by a slow sweep in the
 * background.
 */
#include "app.h"
#include "disk.h"
#include "settings.h"
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define NOT_CHANGED 0xffff
#define REPORTS_MAX 16
/*
 * How many pages are visited between two looks at the clock. They take far less than a millisecond even on a busy host.
 */
#define TURN_PAGES 16
/* The most time that the guest catches up after a stall. After a longer stall it just goes on at its rate. */
#define DEBT_US 20000

static struct settings set;
static uint64_t *memory;
static uint32_t *versions;
static uint64_t fill_pages, region_pages;
/* The slot of each word among the changed words, or NOT_CHANGED. It is a table, since a division is slow under TCG. */
static uint16_t changed_slot[PAGE_WORDS];
static uint16_t changed_word[PAGE_WORDS];
static uint64_t errors, words_checked;

/* Words that come again and again, of which the memory of processes is full, beside pointers and numbers. */
static const char texts[32][9] = {
    "int main", "return 0", "static c", "#include", "struct p", "the page", " of the ", "memory: ",
    "/usr/lib", "/x86_64-", "linux-gn", "error: n", "o such f", "ile or d", "irectory", "LANG=C.U",
    "PATH=/us", "r/bin:/b", "const ch", "ar *name", "function", "(value) ", "{ return", "undefine",
    "\"type\": ", "\"string\"", ", \"key\":", "http://w", "ww.w3.or", "g/2000/s", "vg\" vers", "ion=\"1.1"};

static inline uint64_t mix(uint64_t x) { /* splitmix64 */
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

/*
 * A word of a page that was never changed. Runs of eight words are of one kind, and `random` percent of all words are
 * incompressible.
 */
static inline uint64_t base_word(uint64_t page, uint64_t page_hash, unsigned word) {
  uint64_t hash = mix(page * PAGE_WORDS + word), text;
  if (((hash >> 40) * 100) >> 24 < set.random)
    return hash;
  switch ((page_hash >> (word >> 3)) & 7) {
  case 0:
  case 1:
    return 0;
  case 2:
  case 3: /* pointers into one heap */
    return 0x00007f5a00000000 + ((page >> 6) << 20) + ((hash & 0xff) << 4);
  case 4: /* small numbers */
    return hash & 0x3f;
  case 5: /* a table of increasing offsets */
    return (page << 12) + word * 8;
  default:
    memcpy(&text, texts[hash & 31], 8);
    return text;
  }
}

static inline uint64_t changed_value(uint64_t page, uint32_t version, unsigned slot) {
  return ((page + 1) << 42) + ((uint64_t)slot << 32) + version;
}

static inline uint64_t scrambled_word(uint64_t page, uint32_t version, unsigned word) {
  return mix(((uint64_t)version << 36) + page * PAGE_WORDS + word);
}

static inline uint64_t expected(uint64_t page, uint64_t page_hash, uint32_t version, unsigned word) {
  if (version == 0)
    return base_word(page, page_hash, word);
  if (set.scramble)
    return scrambled_word(page, version, word);
  if (changed_slot[word] != NOT_CHANGED)
    return changed_value(page, version, changed_slot[word]);
  return base_word(page, page_hash, word);
}

static void corrupt(uint64_t page, uint32_t version, unsigned word, uint64_t want) {
  uint64_t *place = memory + page * PAGE_WORDS + word;
  if (errors++ < REPORTS_MAX)
    printf("FERRY CORRUPT page=%llu version=%u offset=%u want=%016llx got=%016llx\n", (unsigned long long)page, version,
           word * 8, (unsigned long long)want, (unsigned long long)*place);
  *place = want; /* the word is corrected, so that one wrong word is one error */
}

static inline void check(uint64_t page, uint64_t page_hash, uint32_t version, unsigned word) {
  uint64_t want = expected(page, page_hash, version, word);
  if (memory[page * PAGE_WORDS + word] != want)
    corrupt(page, version, word, want);
}

static void check_words(uint64_t page, uint32_t version, unsigned from, unsigned count) {
  uint64_t page_hash = mix(~page);
  for (unsigned word = from; word < from + count; word++)
    check(page, page_hash, version, word);
  words_checked += count;
}

/*
 * Visits a page: checks the words that will change and a sample of all words, which moves on with each visit, and then
 * writes the next version.
 */
static void visit(uint64_t page) {
  uint32_t version = versions[page];
  uint64_t *content = memory + page * PAGE_WORDS;
  check_words(page, version, (version * set.sample) % PAGE_WORDS, set.sample);
  if (!set.scramble && version > 0)
    for (unsigned slot = 0; slot < set.words; slot++) {
      uint64_t want = changed_value(page, version, slot);
      if (content[changed_word[slot]] != want)
        corrupt(page, version, changed_word[slot], want);
    }
  versions[page] = ++version;
  if (set.scramble)
    for (unsigned word = 0; word < PAGE_WORDS; word++)
      content[word] = scrambled_word(page, version, word);
  else
    for (unsigned slot = 0; slot < set.words; slot++)
      content[changed_word[slot]] = changed_value(page, version, slot);
}

/*
 * The page of the n-th visit: in the order of the memory, at random with all pages alike, or at random with few pages
 * often.
 */
static uint64_t page_of(uint64_t n) {
  if (set.order == WALK)
    return n % region_pages;
  uint64_t hash = mix(n);
  if (set.order == RANDOM)
    return hash % region_pages;
  /* Zipf's law with exponent 1, by octaves: the ranks from 2^k to 2^(k+1) get as many visits for every k */
  unsigned octaves = 64 - (unsigned)__builtin_clzll(region_pages);
  uint64_t octave = UINT64_C(1) << (hash % octaves), rank = octave - 1 + (hash >> 8) % octave;
  /*
   * An odd factor spreads the popular pages over the region. It is one to one where the region's size is a power of
   * two.
   */
  return rank * 40503 % region_pages;
}

static uint64_t clock_us(clockid_t which) {
  struct timespec now;
  clock_gettime(which, &now);
  return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* How many bytes may be worked on by now. The credit grows with time, and each page spends some of it. */
struct credit {
  uint64_t rate, last_us;
  double bytes;
};

static void credit_grow(struct credit *credit, uint64_t now_us) {
  double most = (double)credit->rate * DEBT_US / 1e6 + PAGE_BYTES;
  credit->bytes += (double)credit->rate * (double)(now_us - credit->last_us) / 1e6;
  if (credit->bytes > most)
    credit->bytes = most;
  credit->last_us = now_us;
}

static void run(void) {
  uint64_t start = clock_us(CLOCK_MONOTONIC), last_turn = start, last_beat = start, next_beat = start;
  uint64_t beat = 0, walked = 0, walked_before = 0, swept = 0, gap_max = 0;
  struct credit dirty = {.rate = set.rate, .last_us = start}, sweep = {.rate = set.check, .last_us = start};
  for (;;) {
    uint64_t now = clock_us(CLOCK_MONOTONIC);
    if (now - last_turn > gap_max)
      gap_max = now - last_turn;
    last_turn = now;
    if (now >= next_beat) {
      uint64_t rate = beat == 0 ? 0 : (walked - walked_before) * PAGE_BYTES * 1000000 / (now - last_beat);
      flockfile(stdout); /* the writers of disk.c print their reports at any time */
      printf("FERRY beat=%llu mono_us=%llu wall_us=%llu maxgap_us=%llu pages=%llu errors=%llu rate=%llu checked=%llu",
             (unsigned long long)beat, (unsigned long long)now, (unsigned long long)clock_us(CLOCK_REALTIME),
             (unsigned long long)gap_max, (unsigned long long)walked, (unsigned long long)errors,
             (unsigned long long)rate, (unsigned long long)words_checked);
      if (set.app)
        printf(" app=%llu", (unsigned long long)app_commands());
      if (set.disk > 0)
        disk_print();
      printf("\n");
      funlockfile(stdout);
      beat++;
      walked_before = walked;
      last_beat = now;
      next_beat += set.beat_ms * 1000;
      if (next_beat <= now)
        next_beat = now + set.beat_ms * 1000;
      gap_max = 0;
    }
    credit_grow(&dirty, now);
    credit_grow(&sweep, now);
    int worked = 0;
    for (; worked < TURN_PAGES && dirty.bytes >= PAGE_BYTES && region_pages > 0; worked++) {
      visit(page_of(walked++));
      dirty.bytes -= PAGE_BYTES;
    }
    if (sweep.bytes >= PAGE_BYTES && fill_pages > 0) {
      uint64_t page = swept++ % fill_pages;
      check_words(page, versions[page], 0, PAGE_WORDS);
      sweep.bytes -= PAGE_BYTES;
      worked++;
    }
    if (worked == 0) {
      struct timespec slice = {.tv_nsec = 1000000};
      nanosleep(&slice, NULL);
    }
  }
}

static void place_changes(void) {
  memset(changed_slot, 0xff, sizeof changed_slot);
  for (unsigned slot = 0; slot < set.words; slot++) {
    unsigned stride = PAGE_WORDS / set.words;
    changed_word[slot] = (uint16_t)(slot * stride + stride / 2);
    changed_slot[changed_word[slot]] = (uint16_t)slot;
  }
}

int main(int argc, char **argv) {
  setvbuf(stdout, NULL, _IOLBF, 512);
  set = read_settings(argc, argv);
  place_changes();
  fill_pages = set.fill / PAGE_BYTES;
  region_pages = set.region / PAGE_BYTES;
  size_t bytes = fill_pages * PAGE_BYTES + PAGE_BYTES;
  memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  versions = calloc(fill_pages + 1, sizeof *versions);
  if (memory == MAP_FAILED || versions == NULL) {
    printf("FERRY no memory for %llu bytes\n", (unsigned long long)set.fill);
    return 1;
  }
  for (uint64_t page = 0; page < fill_pages; page++) {
    uint64_t page_hash = mix(~page);
    for (unsigned word = 0; word < PAGE_WORDS; word++)
      memory[page * PAGE_WORDS + word] = base_word(page, page_hash, word);
  }
  if (getenv("FERRY_DUMP") != NULL) /* to measure how well the memory compresses */
    return write(atoi(getenv("FERRY_DUMP")), memory, fill_pages * PAGE_BYTES) < 0;
  printf("FERRY ready region=%llu fill=%llu rate=%llu words=%u random=%u mode=%s\n", (unsigned long long)set.region,
         (unsigned long long)set.fill, (unsigned long long)set.rate, set.words, set.random,
         set.scramble ? "scramble" : "counters");
  const char *problem = set.disk == 0 ? NULL : disk_start(set.disk, set.disk_rate);
  if (problem != NULL) {
    printf("FERRY no disk: %s\n", problem);
    return 1;
  }
  run();
}
