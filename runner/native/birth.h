/* How a program's process is born. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

/*
 * Start a process at entry(argument), which does not return. `flags` are of clone(2).
 * `numbered`: it is to be pid 2 of its pid namespace, where the kernel can. Returns its pid
 * here, or -errno.
 */
pid_t birth_give(int (*entry)(void *), void *argument, unsigned long flags, bool numbered,
                 int *pidfd);

/* Open what numbers are set by, in the caller's /proc, or -1: they then go on. */
int birth_numbers(void);

/* In the new process: let the numbers of its children begin after its own. */
void birth_count_anew(int numbers);
