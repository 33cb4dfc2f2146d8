/*
 * Plays QEMU's side of a migration stream: feeder SOCKET PROLOGUE FIRST SECOND END PASSES
 *
 * PROLOGUE, FIRST, SECOND and END are the lengths of four pieces. The program reads these pieces from standard input,
 * connects to the unix socket, and writes the prologue, then the two passes in turns until there were PASSES passes,
 * and then the end. Each write has about as much as QEMU writes at once: the 64 pieces of QEMU's iovec are 32 pages
 * with their headers (migration/qemu-file.c MAX_IOV_SIZE). When the reader has closed, the program says what writing
 * has taken: user and system time in seconds, and the number of minor page faults.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { WRITE_BYTES = 32 * (4096 + 8) };

struct piece {
  char *bytes;
  size_t length;
};

static struct piece take(const char *length_text) {
  struct piece piece = {NULL, strtoul(length_text, NULL, 10)};
  piece.bytes = malloc(piece.length + 1);
  for (size_t at = 0; piece.bytes && at < piece.length;) {
    ssize_t got = read(0, piece.bytes + at, piece.length - at);
    if (got <= 0) exit(3);
    at += got;
  }
  if (!piece.bytes) exit(3);
  return piece;
}

static void give(int fd, struct piece piece) {
  for (size_t at = 0; at < piece.length;) {
    size_t left = piece.length - at;
    ssize_t put = write(fd, piece.bytes + at, left < WRITE_BYTES ? left : WRITE_BYTES);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) exit(4);
    at += put;
  }
}

static double seconds(struct timeval time) { return time.tv_sec + time.tv_usec / 1e6; }

int main(int argc, char **argv) {
  if (argc != 7) return 2;
  struct piece prologue = take(argv[2]), first = take(argv[3]), second = take(argv[4]), end = take(argv[5]);
  struct sockaddr_un to = {.sun_family = AF_UNIX};
  if (strlen(argv[1]) >= sizeof to.sun_path) return 2;
  strcpy(to.sun_path, argv[1]);
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) != 0) {
    perror("connect");
    return 4;
  }
  struct rusage before, after;
  getrusage(RUSAGE_SELF, &before);
  give(fd, prologue);
  for (int pass = 0; pass < atoi(argv[6]); pass++) give(fd, pass % 2 ? second : first);
  give(fd, end);
  getrusage(RUSAGE_SELF, &after);
  /* waits until the reader closes, since the end that closes first ends the migration */
  char byte;
  while (read(fd, &byte, 1) > 0) {
  }
  printf("{\"user\":%f,\"system\":%f,\"faults\":%ld}\n", seconds(after.ru_utime) - seconds(before.ru_utime),
         seconds(after.ru_stime) - seconds(before.ru_stime), after.ru_minflt - before.ru_minflt);
  return 0;
}
