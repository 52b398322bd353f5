/* What an errno alone does not tell. */
#pragma once

#include "steps.h"

/* Say more of why a program's step failed, where there is more to say. */
enum detail explain_failure(const struct plan *plan, const struct report *report);
