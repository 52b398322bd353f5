/* Frames on the control socket: one message each, fds beside it. */
#pragma once

#include "plan.h"

enum { CONTROL_FD = 3, FRAME_FDS_MAX = WIRE_FDS_MAX + 64 };

struct frame {
    struct wire_request request;
    const uint8_t *plan; /* plan_bytes of the request; in `bytes` or mapped */
    unsigned fd_count;
    unsigned lent; /* so many of them, the last, are not its own (kept.c) */
    int fds[FRAME_FDS_MAX];
    bool mapped;
    uint8_t bytes[WIRE_FRAME_MAX];
};

/* Returns 1, 0 at the end of the stream, -errno, or -EPROTO for a malformed frame. */
int frame_receive(int control, struct frame *frame);

/* Close its fds and unmap its plan. */
void frame_release(struct frame *frame);

/* Take over another frame's fds and plan; `from` is empty then. */
void frame_move(struct frame *to, struct frame *from);

struct wire_reply reply_make(enum reply_kind kind, uint64_t run_id);

/* Send it, and `tail` after it. Returns 0 or -errno. */
int reply_send(int control, const struct wire_reply *reply, const void *tail, size_t size);

/* Send it with a copy of an fd. Returns 0 or -errno. */
int reply_send_fd(int control, const struct wire_reply *reply, int fd);
