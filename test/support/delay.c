/*
 * A cable with a length: a packet that is sent at one of two network interfaces arrives at the other a given time
 * later.
 *
 *     delay NAMESPACE_A INTERFACE_A NAMESPACE_B INTERFACE_B MICROSECONDS
 *
 * The program makes both interfaces (tun, one in each namespace), says "ready", and runs until its standard input ends.
 * The interfaces go when it ends. Packets of up to 64 KiB pass as they are, as over a veth pair (TSO), so that at a
 * gigabit a second the program takes a tenth of a core.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

/*
 * The most that is on its way in one direction: 10 ms of 10 Gbit/s are 12.5 MB. More is dropped, as a switch would do.
 */
#define RING_BYTES (32u << 20)
#define PACKET_MAX (66u << 10)

/* The head of a packet in the ring. */
struct record {
  uint64_t due_ns;
  uint32_t bytes, skip; /* skip: bytes up to the end of the ring that hold no packet; 0 for a packet */
};

struct direction {
  int from, to;
  uint8_t *ring;
  uint64_t head, tail; /* how many bytes of the ring were read and written so far */
};

static void die(const char *what) {
  perror(what);
  exit(1);
}

static uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static int open_end(const char *namespace, const char *name) {
  char path[256];
  snprintf(path, sizeof path, "/run/netns/%s", namespace);
  int space = open(path, O_RDONLY | O_CLOEXEC);
  if (space < 0 || setns(space, CLONE_NEWNET) != 0)
    die(path);
  close(space);
  int end = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (end < 0)
    die("/dev/net/tun");
  struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR};
  snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
  if (ioctl(end, TUNSETIFF, &request) != 0)
    die("TUNSETIFF");
  if (ioctl(end, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6) != 0)
    die("TUNSETOFFLOAD");
  return end;
}

static size_t padded(size_t bytes) { return (sizeof(struct record) + bytes + 15) & ~(size_t)15; }

/* Takes all packets that have come, each with the time at which it is due. */
static void take(struct direction *way, uint64_t delay_ns) {
  static uint8_t packet[PACKET_MAX];
  for (;;) {
    ssize_t got = read(way->from, packet, sizeof packet);
    if (got <= 0)
      return;
    size_t place = way->tail % RING_BYTES, need = padded((size_t)got), wasted = 0;
    if (place + need > RING_BYTES)
      wasted = RING_BYTES - place;
    if (way->tail - way->head + wasted + need > RING_BYTES)
      continue;
    if (wasted > 0) {
      *(struct record *)(way->ring + place) = (struct record){.skip = (uint32_t)wasted};
      way->tail += wasted;
      place = 0;
    }
    *(struct record *)(way->ring + place) = (struct record){.due_ns = now_ns() + delay_ns, .bytes = (uint32_t)got};
    memcpy(way->ring + place + sizeof(struct record), packet, (size_t)got);
    way->tail += need;
  }
}

/* Sends the packets that are due. Returns when the next one is due, or UINT64_MAX if there is none. */
static uint64_t give(struct direction *way) {
  while (way->head != way->tail) {
    struct record *record = (struct record *)(way->ring + way->head % RING_BYTES);
    if (record->skip > 0) {
      way->head += record->skip;
      continue;
    }
    if (record->due_ns > now_ns())
      return record->due_ns;
    /* an interface that is down loses the packet, as a cut cable does */
    if (write(way->to, record + 1, record->bytes) < 0 && errno == EAGAIN)
      return now_ns() + 100000;
    way->head += padded(record->bytes);
  }
  return UINT64_MAX;
}

int main(int argc, char **argv) {
  if (argc != 6) {
    fprintf(stderr, "delay NAMESPACE_A INTERFACE_A NAMESPACE_B INTERFACE_B MICROSECONDS\n");
    return 2;
  }
  uint64_t delay_ns = strtoull(argv[5], NULL, 10) * 1000;
  int a = open_end(argv[1], argv[2]), b = open_end(argv[3], argv[4]);
  struct direction ways[2] = {{.from = a, .to = b}, {.from = b, .to = a}};
  for (int way = 0; way < 2; way++)
    if ((ways[way].ring = malloc(RING_BYTES)) == NULL)
      die("malloc");
  prctl(PR_SET_TIMERSLACK, 1000);
  printf("ready\n");
  fflush(stdout);
  for (;;) {
    uint64_t next = UINT64_MAX;
    for (int way = 0; way < 2; way++) {
      uint64_t due = give(&ways[way]);
      next = due < next ? due : next;
    }
    struct pollfd watched[3] = {{.fd = a, .events = POLLIN}, {.fd = b, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
    uint64_t now = now_ns(), wait = next == UINT64_MAX ? 0 : next > now ? next - now : 0;
    struct timespec timeout = {.tv_sec = (time_t)(wait / 1000000000), .tv_nsec = (long)(wait % 1000000000)};
    if (ppoll(watched, 3, next == UINT64_MAX ? NULL : &timeout, NULL) < 0 && errno != EINTR)
      die("ppoll");
    if (watched[2].revents != 0)
      return 0;
    for (int way = 0; way < 2; way++)
      take(&ways[way], delay_ns);
  }
}
