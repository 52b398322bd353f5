/* What an errno or a signal alone does not tell. */
#pragma once

#include "steps.h"

/* Say more of why a program's step failed, where there is more to say. */
enum detail explain_failure(const struct plan *plan, const struct report *report);

/*
 * Say whether a program that a signal has ended could not even be loaded: its segments
 * alone are more than its address space or data may be. `fds`: of the frame.
 */
enum detail explain_death(const struct plan *plan, const int *fds, int status);
