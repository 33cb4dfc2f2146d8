/*
 * Writes numbered blocks of 4 KiB to the guest's disk and checks them all the time, past the guest's own cache
 * (O_DIRECT).
 *
 * Every word of a block is a pure function of (block, version of the block, word), and the version of each block is
 * kept in memory. So the guest itself sees a block that is stale, torn or in the wrong place. It also sees it when its
 * memory and its disk are from different moments.
 */
#ifndef DISK_H
#define DISK_H
#include <stdint.h>

/*
 * Starts the writers. Write number n goes to block place(n) (disk.c) and gives it version n / blocks + 1; the block is
 * read and compared before that. `bytes` is the size of the disk, and its number of blocks must be a power of two. A
 * new disk holds zeros, which is version 0 of each block. `rate` is the most that is written, in bytes a second; 0 sets
 * no limit. Returns NULL, or a text that says what is wrong.
 */
const char *disk_start(uint64_t bytes, uint64_t rate);

/*
 * Prints the heartbeat's field disk=WRITTEN,CHECKED,WRONG,FAILED. All writes with a number below WRITTEN are done.
 * CHECKED blocks were read and compared, and WRONG of them were wrong. FAILED reads and writes ended with an error, and
 * were tried again.
 */
void disk_print(void);

#endif
