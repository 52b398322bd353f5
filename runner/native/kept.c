/*
 * Fds that the grader gives once, for all runs. What the files mean only the grader
 * knows (runner/cgroup/): here they are set to 0 and read, between two messages that
 * have to be sent anyway, where Python would take several times as long.
 */
#define _GNU_SOURCE
#include "kept.h"

#include "sys.h"

#include <string.h>

int kept_take(struct kept *kept, struct frame *frame)
{
    kept_release(kept);
    if (frame->fd_count > KEPT_MAX || frame->request.plan_bytes != frame->fd_count)
        return -EPROTO;
    memcpy(kept->fds, frame->fds, frame->fd_count * sizeof *kept->fds);
    memcpy(kept->uses, frame->plan, frame->fd_count);
    kept->count = frame->fd_count;
    frame->fd_count = 0;
    return 0;
}

void kept_release(struct kept *kept)
{
    for (unsigned i = 0; i < kept->count; i++)
        close_fd(&kept->fds[i]);
    kept->count = 0;
}

int kept_lend(const struct kept *kept, struct frame *frame)
{
    if (frame->fd_count + kept->count > FRAME_FDS_MAX)
        return -EPROTO;
    memcpy(frame->fds + frame->fd_count, kept->fds, kept->count * sizeof *kept->fds);
    frame->fd_count += kept->count;
    frame->lent = kept->count;
    return 0;
}

/* A file that would not fit whole is an error: a figure cut off is a wrong one. */
static int read_used(const struct kept *kept, enum kept_use use, struct readings *readings)
{
    for (unsigned i = 0; i < kept->count; i++) {
        if (!(kept->uses[i] & use))
            continue;
        size_t room = sizeof readings->text - readings->size;
        ssize_t got = pread(kept->fds[i], readings->text + readings->size, room, 0);
        if (got < 0)
            return -errno;
        if ((size_t)got >= room)
            return -EFBIG;
        readings->size += (size_t)got;
        readings->text[readings->size++] = 0;
    }
    return 0;
}

int kept_begin(const struct kept *kept, struct readings *readings)
{
    readings->size = 0;
    for (unsigned i = 0; i < kept->count; i++)
        if ((kept->uses[i] & KEPT_RESET) && pwrite(kept->fds[i], "0", 1, 0) != 1)
            return -errno;
    return read_used(kept, KEPT_READ_BEFORE, readings);
}

int kept_end(const struct kept *kept, struct readings *readings)
{
    return read_used(kept, KEPT_READ_AFTER, readings);
}
