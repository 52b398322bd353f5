/* A count of events in the program and all that it starts; see perf_event_open(2). */
#pragma once

#include <stdint.h>

/* Count in what the caller starts from now on, from its exec. Returns an fd or -errno. */
int counter_open(uint32_t type, uint32_t config);

/* Returns the count, or -1: it was not counted all the time. */
int64_t counter_read(int fd);
