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
 * it. `exact`: shared pages count once, which takes the kernel a walk over all
 * page tables. Returns 0 or -errno.
 */
int follow_tree(int proc, pid_t program, const struct report *report, bool exact,
                struct tree_usage *usage);
