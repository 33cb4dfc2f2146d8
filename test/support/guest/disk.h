/*
 * The guest's disk, written and checked all the time: numbered blocks of 4 KiB, past the guest's own cache (O_DIRECT).
 *
 * Every word of a block is a pure function of (block, version of the block, word), and the version of each block is kept
 * in memory. So a block that is stale, torn or in the wrong place is seen from the inside, and so is a memory that is of
 * another moment than the disk.
 */
#ifndef DISK_H
#define DISK_H
#include <stdint.h>

/*
 * Starts the writers. Write number n goes to block disk_place(n) and gives it version n / blocks + 1; the block is read
 * and compared before that. `bytes` is a power of two of blocks; a disk that is new holds zeros, which is version 0.
 * `rate` is the most that is written, bytes a second; 0 is as fast as it goes. Returns 0, or what is wrong as a text.
 */
const char *disk_start(uint64_t bytes, uint64_t rate);

/*
 * Prints the heartbeat's field disk=WRITTEN,CHECKED,WRONG,FAILED: each write before number WRITTEN is done, whichever
 * writer made it; CHECKED blocks were read and compared, and WRONG of them were wrong; FAILED reads and writes were
 * answered with an error, and tried again.
 */
void disk_print(void);

#endif
