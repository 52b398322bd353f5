/* The program's stdout and stderr, where the keeper carries them. */
#pragma once

#include "control.h"

struct stream {
    int source; /* our end of the pipe, or -1 */
    int sink;   /* borrowed from the frame */
    int64_t keep;
    int64_t seen; /* what the program wrote, or -1: not captured */
};

struct capture {
    struct stream stream[2];
};

/* Make the pipes; their write ends go to `ends`. Returns 0 or -errno. */
int capture_open(struct capture *capture, const struct frame *frame, int ends[2]);

/* Move what is there. Returns 0 or -errno: the sink has failed. */
int capture_drain(struct stream *stream);

/*
 * Move what is left when the run's processes are dead: no more than a pipe holds, for some
 * other process may have been given its end, and write on. Returns as capture_drain does.
 */
int capture_finish(struct stream *stream);
void capture_close(struct capture *capture);
