/* What a program has used, and what its limits say to that. */
#pragma once

#include "watch.h"

/*
 * Read CPU time from a cgroup's file, in ns, or -1: cpuacct.usage is one number
 * (CPU_FORMAT_NS), cpu.stat begins with "usage_usec N" (CPU_FORMAT_STAT).
 */
int64_t limit_read_cpu(int fd, int format);

/* Look, and end the program at a limit. Returns when to look again (CLOCK_MONOTONIC, ns). */
int64_t limit_check(struct watch *watch);
