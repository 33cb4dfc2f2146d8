/* Writes and checks blocks of the disk (disk.h). test/support/disk-image.ts has the same pattern and the same order. */
#define _GNU_SOURCE
#include "disk.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define DEVICE "/dev/vda"
#define BLOCK_BYTES 4096
#define BLOCK_WORDS 1024
/* Several writers, so that several requests are under way whenever the guest is stopped. */
#define WRITERS 4
#define REPORTS_MAX 16
#define RETRY_NS 100000000
/* The stride is odd, so place() is one to one where the number of blocks is a power of two. */
#define STRIDE 40503u

static int device;
static uint32_t blocks;
static uint32_t *versions;
static long pause_ns;
static atomic_uint_fast64_t next_write, checked, wrong, failed, reports;
/* The number of the write that each writer works on. All writes with a number below the least of these are done. */
static atomic_uint_fast64_t at[WRITERS];

static uint32_t mix(uint32_t x) { /* the last step of murmur3 (fmix32) */
  x = (x ^ (x >> 16)) * 0x85ebca6b;
  x = (x ^ (x >> 13)) * 0xc2b2ae35;
  return x ^ (x >> 16);
}

/*
 * A word of a block. The first two words are the number of the block and its version. Version 0, a block that was never
 * written, is all zeros.
 */
static uint32_t pattern(uint32_t block, uint32_t version, uint32_t word) {
  if (version == 0)
    return 0;
  if (word < 2)
    return word == 0 ? block : version;
  return mix(mix(block * BLOCK_WORDS + word) ^ version);
}

static uint32_t place(uint64_t number) { return (uint32_t)number % blocks * STRIDE % blocks; }

static uint64_t all_done_before(void) {
  uint64_t least = UINT64_MAX;
  for (int writer = 0; writer < WRITERS; writer++) {
    uint64_t number = atomic_load(&at[writer]);
    if (number < least)
      least = number;
  }
  return least;
}

static void rest(long ns) {
  struct timespec time = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
  nanosleep(&time, NULL);
}

/* Reads or writes a block, again and again until the disk has done it. */
static void transfer(int is_write, uint32_t *buffer, uint32_t block) {
  for (;;) {
    off_t offset = (off_t)block * BLOCK_BYTES;
    ssize_t done = is_write ? pwrite(device, buffer, BLOCK_BYTES, offset) : pread(device, buffer, BLOCK_BYTES, offset);
    if (done == BLOCK_BYTES)
      return;
    atomic_fetch_add(&failed, 1);
    if (atomic_fetch_add(&reports, 1) < REPORTS_MAX)
      printf("FERRY DISK %s block=%u bytes=%zd error=%s\n", is_write ? "write" : "read", block, done,
             done < 0 ? strerror(errno) : "none");
    rest(RETRY_NS);
  }
}

static void check(const uint32_t *buffer, uint32_t block, uint32_t version) {
  atomic_fetch_add(&checked, 1);
  for (uint32_t word = 0; word < BLOCK_WORDS; word++) {
    uint32_t want = pattern(block, version, word);
    if (buffer[word] == want)
      continue;
    atomic_fetch_add(&wrong, 1);
    if (atomic_fetch_add(&reports, 1) < REPORTS_MAX)
      printf("FERRY CORRUPT block=%u version=%u offset=%u want=%08x got=%08x holds=%u,%u\n", block, version, word * 4,
             want, buffer[word], buffer[0], buffer[1]);
    return;
  }
}

static void *write_on(void *given) {
  atomic_uint_fast64_t *mine = given;
  uint32_t *buffer = aligned_alloc(BLOCK_BYTES, BLOCK_BYTES);
  if (buffer == NULL)
    abort();
  for (;;) {
    uint64_t number = atomic_fetch_add(&next_write, 1);
    atomic_store(mine, number);
    /* waits, so that two writers never work on the same block, however long one of them takes */
    while (number - all_done_before() > blocks / 2)
      rest(1000000);
    uint32_t block = place(number);
    transfer(0, buffer, block);
    check(buffer, block, versions[block]);
    uint32_t version = versions[block] + 1;
    for (uint32_t word = 0; word < BLOCK_WORDS; word++)
      buffer[word] = pattern(block, version, word);
    transfer(1, buffer, block);
    versions[block] = version;
    if (pause_ns > 0)
      rest(pause_ns);
  }
  return NULL;
}

const char *disk_start(uint64_t bytes, uint64_t rate) {
  blocks = (uint32_t)(bytes / BLOCK_BYTES);
  if (blocks < 4 * WRITERS || (blocks & (blocks - 1)) != 0)
    return "its number of blocks is no power of two, or too small";
  device = open(DEVICE, O_RDWR | O_DIRECT);
  versions = calloc(blocks, sizeof *versions);
  if (device < 0 || versions == NULL)
    return strerror(errno);
  pause_ns = rate == 0 ? 0 : (long)(WRITERS * UINT64_C(1000000000) * BLOCK_BYTES / rate);
  for (int writer = 0; writer < WRITERS; writer++) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, write_on, &at[writer]) != 0)
      return "a thread for it could not be started";
  }
  return NULL;
}

void disk_print(void) {
  printf(" disk=%llu,%llu,%llu,%llu", (unsigned long long)all_done_before(), (unsigned long long)atomic_load(&checked),
         (unsigned long long)atomic_load(&wrong), (unsigned long long)atomic_load(&failed));
}
