/*
 * Counts the work of an application in the guest that is not a part of this project: the commands of a redis-server on
 * this guest's loopback. The server is asked at each heartbeat. Nothing here waits: if the answer has not come by the
 * next heartbeat, no new question is asked then.
 */
#ifndef APP_H
#define APP_H
#include <stdint.h>

/*
 * Reads an answer if one has come, and asks again if no question is open. Returns the commands of clients so far, by
 * the last answer.
 */
uint64_t app_commands(void);

#endif
