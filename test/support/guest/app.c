/*
 * Asks a redis-server how many commands it has done (app.h), by an inline command that has a bulk answer:
 * https://redis.io/docs/latest/develop/reference/protocol-spec
 */
#include "app.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PORT 6379
#define QUESTION "INFO stats\r\n"
#define FIELD "total_commands_processed:"

static int server = -1;
/* asked: how many questions this program has asked, which redis counts as commands too */
static uint64_t asked, commands;
static char answer[16384];
static size_t length;
static int waiting;

static void hang_up(void) {
  close(server);
  server = -1;
  waiting = 0;
  length = 0;
}

static int is_connected(void) {
  if (server >= 0)
    return 1;
  struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons(PORT), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  server = socket(AF_INET, SOCK_STREAM, 0);
  if (server < 0)
    return 0;
  /* on the loopback a connection is made at once, or refused */
  if (connect(server, (struct sockaddr *)&there, sizeof there) != 0) {
    hang_up();
    return 0;
  }
  fcntl(server, F_SETFL, O_NONBLOCK);
  return 1;
}

static void take_answer(void) {
  ssize_t got = read(server, answer + length, sizeof answer - 1 - length);
  if (got <= 0) {
    if (got == 0 || errno != EAGAIN)
      hang_up();
    return;
  }
  length += (size_t)got;
  answer[length] = 0;
  char *field = strstr(answer, FIELD);
  if (field == NULL || strchr(field, '\n') == NULL)
    return;
  uint64_t all = strtoull(field + strlen(FIELD), NULL, 10);
  commands = all > asked ? all - asked : 0;
  /* the whole answer has come, since it is smaller than a socket's buffer */
  waiting = 0;
  length = 0;
}

uint64_t app_commands(void) {
  if (!is_connected())
    return commands;
  if (waiting)
    take_answer();
  if (server >= 0 && !waiting && write(server, QUESTION, strlen(QUESTION)) == (ssize_t)strlen(QUESTION)) {
    asked++;
    waiting = 1;
  }
  return commands;
}
