/* What a process tree uses, read from /proc where no cgroup counts it. */
#pragma once

#include "steps.h"

struct tree_usage {
    int64_t cpu_ns;
    int64_t memory_bytes;
    unsigned processes;
};

/*
 * `proc`: fd of the sandbox's /proc, or -1. `program`: its pid as the keeper sees
 * it. Returns 0 or -errno.
 */
int follow_tree(int proc, pid_t program, pid_t program_inside, const struct report *report,
                struct tree_usage *usage);
