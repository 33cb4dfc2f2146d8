/* Reads the settings of the workload (settings.h). */
#include "settings.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct settings set = {
    .region = 128 << 20, .rate = 200000000, .check = 32000000, .disk_rate = 4000000, .words = 4, .random = 27,
    .beat_ms = 50, .sample = 16};

static uint64_t parse_size(const char *text) {
  char *end;
  double value = strtod(text, &end);
  uint64_t unit = *end == 'K' ? 1 << 10 : *end == 'M' ? 1 << 20 : *end == 'G' ? 1 << 30 : 1;
  return (uint64_t)(value * (double)unit);
}

/* Rates are decimal, as link rates are; sizes are binary. */
static uint64_t parse_rate(const char *text) {
  char *end;
  double value = strtod(text, &end);
  return (uint64_t)(value * (*end == 'K' ? 1e3 : *end == 'M' ? 1e6 : *end == 'G' ? 1e9 : 1));
}

static void take(char *word) {
  char *value = strchr(word, '=');
  if (strncmp(word, "ferry.", 6) != 0 || value == NULL)
    return;
  *value++ = 0;
  word += 6;
  if (strcmp(word, "region") == 0)
    set.region = parse_size(value);
  else if (strcmp(word, "fill") == 0)
    set.fill = parse_size(value);
  else if (strcmp(word, "rate") == 0)
    set.rate = parse_rate(value);
  else if (strcmp(word, "check") == 0)
    set.check = parse_rate(value);
  else if (strcmp(word, "disk") == 0)
    set.disk = parse_size(value);
  else if (strcmp(word, "diskrate") == 0)
    set.disk_rate = parse_rate(value);
  else if (strcmp(word, "words") == 0)
    set.words = (unsigned)atoi(value);
  else if (strcmp(word, "random") == 0)
    set.random = (unsigned)atoi(value);
  else if (strcmp(word, "beat") == 0)
    set.beat_ms = (unsigned)atoi(value);
  else if (strcmp(word, "sample") == 0)
    set.sample = (unsigned)atoi(value);
  else if (strcmp(word, "app") == 0)
    set.app = atoi(value);
  else if (strcmp(word, "mode") == 0)
    set.scramble = strcmp(value, "scramble") == 0;
  else if (strcmp(word, "order") == 0)
    set.order = strcmp(value, "random") == 0 ? RANDOM : strcmp(value, "zipf") == 0 ? ZIPF : WALK;
  else
    printf("FERRY unknown parameter ferry.%s\n", word);
}

static void take_line(char *line) {
  for (char *word = strtok(line, " \n"); word != NULL; word = strtok(NULL, " \n"))
    take(word);
}

struct settings read_settings(int argc, char **argv) {
  static char line[4096];
  int file = open("/proc/cmdline", O_RDONLY);
  if (file >= 0 && argc == 1) {
    ssize_t got = read(file, line, sizeof line - 1);
    if (got > 0)
      take_line(line);
  }
  for (int index = 1; index < argc; index++)
    take(argv[index]);
  if (set.fill < set.region)
    set.fill = set.region;
  if (set.words > PAGE_WORDS)
    set.words = PAGE_WORDS;
  /* the sample is a divisor of the page's words, so that it never runs over the end of the page */
  while (set.sample == 0 || PAGE_WORDS % set.sample != 0)
    set.sample++;
  if (set.sample > PAGE_WORDS)
    set.sample = PAGE_WORDS;
  return set;
}
