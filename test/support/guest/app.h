/*
 * An application of others' making in the guest: how many commands a redis-server on this guest's loopback has done,
 * asked of itself once a heartbeat. Nothing here waits: what has not been answered by the next beat is asked later.
 */
#ifndef APP_H
#define APP_H
#include <stdint.h>

/* Takes what has been answered, and asks again when nothing is under way. Commands done by clients, as last answered. */
uint64_t app_commands(void);

#endif
