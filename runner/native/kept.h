/* Fds that the grader gives once, for all runs: the files of a sandbox's cgroups. */
#pragma once

#include "control.h"

enum { KEPT_MAX = 64, READINGS_MAX = 8192 };

struct kept {
    int fds[KEPT_MAX];
    uint8_t uses[KEPT_MAX]; /* enum kept_use */
    unsigned count;
};

/* What the kept files said before a run and after it, each ended by a NUL. */
struct readings {
    size_t size;
    char text[READINGS_MAX];
};

/* Handle a KEEP: these take the place of those from before. Returns 0 or -EPROTO. */
int kept_take(struct kept *kept, struct frame *frame);
void kept_release(struct kept *kept);

/* Number them after the frame's own fds, to which they are lent. Returns 0 or -EPROTO. */
int kept_lend(const struct kept *kept, struct frame *frame);

/* Start what counts anew, and read what is to be read before a run. Returns 0 or -errno. */
int kept_begin(const struct kept *kept, struct readings *readings);

/* Read what is to be read after it. Returns 0 or -errno. */
int kept_end(const struct kept *kept, struct readings *readings);
