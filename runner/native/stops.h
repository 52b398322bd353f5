/* Stops of what the keeper traces, as both of its tracers meet them. */
#pragma once

#include "sys.h"

#include <sys/types.h>

/*
 * Many threads stop faster than they can be answered, and one path may lead through 40 links
 * of 2000 directories each: after so long, limits are looked at too.
 */
#define STOPS_AT_A_TIME_NS (2 * MS_NS)

/* Before the program is born: an fd that is ready when something has stopped, or -errno. */
int stops_open(void);
void stops_close(int *stops);

/* There is nothing to be told any more … */
void stops_take(int stops);

/* … or there may be: the fd is ready again. */
void stops_return(void);

/* It waits to be traced, by what it has sent: do, and let it go on. Returns 0 or -errno. */
int stops_seize(pid_t program, int sync, unsigned options);

/*
 * Let a thread go on from where it has stopped for us, by the status of wait4 above its lowest
 * 8 bits: with its signal, or in the stop that the signal has brought. Returns 0 or -errno.
 */
int stops_resume(pid_t thread, int status);
