/* What /proc says of the program at its end, copied as it is. */
#pragma once

#include "watch.h"

/* Are there notes that can be taken only while its memory is there? */
bool notes_at_exit(const struct watch *watch);

/*
 * Take those, in place of any that were taken before. `first_ended`: of another thread, since
 * the first has no memory any more. Returns 0 or -errno of the memfd.
 */
int notes_take_at_exit(const struct watch *watch, bool first_ended);

/* Take those of a process that has ended and waits to be reaped. */
int notes_take_when_gone(const struct watch *watch);

/* A thread is about to exit, and the first has: does another have the memory still? */
bool notes_others(const struct watch *watch);
