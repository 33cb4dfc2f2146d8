/*
 * The settings of the test guest's workload. They come from the kernel command line, or from the arguments:
 * ferry.region=128M ferry.fill=128M ferry.rate=200M ferry.words=4 ferry.random=… ferry.mode=counters|scramble
 * ferry.order=walk|random|zipf ferry.beat=50 ferry.sample=16 ferry.check=32M ferry.app=1 ferry.disk=8M
 * ferry.diskrate=4M.
 */
#ifndef SETTINGS_H
#define SETTINGS_H
#include <stdint.h>

#define PAGE_BYTES 4096
#define PAGE_WORDS 512

struct settings {
  uint64_t region, fill, rate, check, disk, disk_rate;
  unsigned words, random, beat_ms, sample;
  int scramble, app;
  enum { WALK, RANDOM, ZIPF } order;
};

/* Reads the settings. A setting that is not named has its default; an unknown name is printed. */
struct settings read_settings(int argc, char **argv);

#endif
