/*
 * Operations on the program's file descriptors. First everything of ours that
 * lies where the program's fds will be is moved above (clear_fds), then each is
 * put into place: no order of copies can overwrite a source that is still needed.
 */
#define _GNU_SOURCE
#include "steps.h"
#include "sys.h"

#include <fcntl.h>
#include <string.h>

static int move_above(int *fd, int first)
{
    if (*fd < 0 || *fd >= first)
        return 0;
    int moved = fcntl(*fd, F_DUPFD_CLOEXEC, first);
    if (moved < 0)
        return -errno;
    *fd = moved; /* the old one is overwritten or closed by place_fds */
    return 0;
}

/* arg: number of the program's fds */
int op_clear_fds(const struct step *step, struct context *context)
{
    int first = (int)step->arg[0];
    int result = move_above(&context->sync, first);
    if (result == 0)
        result = move_above(&context->notify, first);
    for (unsigned i = 0; i < 2 && result == 0; i++)
        result = move_above(&context->pipes[i], first);
    for (unsigned i = 0; i < context->fd_count && result == 0; i++)
        result = move_above(&context->fds[i], first);
    return result;
}

static int source_fd(int32_t source, const struct context *context)
{
    if (source == FD_STDOUT_PIPE || source == FD_STDERR_PIPE)
        return context->pipes[FD_STDOUT_PIPE - source];
    return context->fds[source];
}

/* blob: for each of the program's fds an int32 index into the frame's fds, or FD_* */
int op_place_fds(const struct step *step, struct context *context)
{
    for (int target = 0; (size_t)target < step->length / sizeof(int32_t); target++) {
        int32_t source;
        memcpy(&source, step->data + (size_t)target * sizeof source, sizeof source);
        if (source == FD_CLOSED) {
            (void)close(target); /* EBADF: it is closed already */
            continue;
        }
        if (dup3(source_fd(source, context), target, 0) < 0)
            return -errno;
    }
    return 0;
}

static int set_cloexec(int first)
{
    for (int fd = first; fd < 1024; fd++)
        if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 && errno != EBADF)
            return -errno;
    return 0;
}

/*
 * arg: first fd to close at exec; not at once, for the steps that follow need
 * some. All of the keeper's are close-on-exec already: this is the second lock.
 * CLOSE_RANGE_CLOEXEC is Linux 5.11.
 */
int op_close_range(const struct step *step, struct context *context)
{
    (void)context;
    long result = sys_result(
        syscall(SYS_close_range, (unsigned)step->arg[0], ~0u, CLOSE_RANGE_CLOEXEC_FLAG));
    if (result == -ENOSYS || result == -EINVAL)
        return set_cloexec((int)step->arg[0]);
    return (int)result;
}
