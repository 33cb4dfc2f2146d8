/*
 * Plays the destination's QEMU, which takes a migration stream: player SOCKET PAGES
 *
 * It listens at the unix socket, says so on its output, and takes one connection. As QEMU does, it reads 32 KiB at a
 * time (migration/qemu-file.c IO_BUF_SIZE) and copies them to memory, which it has touched before, so that the cost of
 * that is not measured. When the connection ends, it says what it has used: user and system time in seconds, and the
 * number of minor page faults.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { READ_BYTES = 32768 };

static double seconds(struct timeval time) { return time.tv_sec + time.tv_usec / 1e6; }

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  size_t length = strtoul(argv[2], NULL, 10) << 12;
  char *memory = malloc(length);
  if (!memory || length < READ_BYTES) return 3;
  memset(memory, 1, length);
  struct sockaddr_un at = {.sun_family = AF_UNIX};
  if (strlen(argv[1]) >= sizeof at.sun_path) return 2;
  strcpy(at.sun_path, argv[1]);
  int listener = socket(AF_UNIX, SOCK_STREAM, 0);
  if (listener < 0 || bind(listener, (struct sockaddr *)&at, sizeof at) != 0 || listen(listener, 1) != 0) {
    perror("listen");
    return 4;
  }
  puts("listening");
  fflush(stdout);
  int from = accept(listener, NULL, NULL);
  struct rusage before, after;
  getrusage(RUSAGE_SELF, &before);
  static char piece[READ_BYTES];
  size_t to = 0;
  for (ssize_t got; (got = read(from, piece, sizeof piece)) > 0; to += got) {
    if (to + got > length) to = 0;
    memcpy(memory + to, piece, got);
  }
  getrusage(RUSAGE_SELF, &after);
  printf("{\"user\":%f,\"system\":%f,\"faults\":%ld}\n", seconds(after.ru_utime) - seconds(before.ru_utime),
         seconds(after.ru_stime) - seconds(before.ru_stime), after.ru_minflt - before.ru_minflt);
  return 0;
}
