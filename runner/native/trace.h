/* Tracing of the program, to look at it when it exits; see trace.c. */
#pragma once

#include "watch.h"

/* Before the program is born: be told of its stops. Returns 0 or -errno. */
int trace_prepare(struct watch *watch);

/* It waits to be traced: do, and let it go on. Returns 0 or -errno. */
int trace_seize(const struct watch *watch);

/* Answer its stops. */
void trace_events(struct watch *watch);

/* When it has been reaped: trace nothing any more. */
void trace_end(struct watch *watch);
