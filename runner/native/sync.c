/*
 * Operations in which a program's process, before its exec, meets the keeper or a
 * tracer.
 */
#define _GNU_SOURCE
#include "steps.h"
#include "sys.h"

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/socket.h>

/* Our copy of the keeper's end: held, the keeper's own end would go unseen. */
int op_close_sync(const struct step *step, struct context *context)
{
    (void)step;
    long closed = sys_result(close(context->sync_peer));
    context->sync_peer = -1;
    return (int)closed;
}

/* arg: a word; SYNC_WAITS tells the keeper that all is set up, SYNC_SEIZE to trace us … */
int op_sync_write(const struct step *step, struct context *context)
{
    const char word = (char)step->arg[0];
    return send(context->sync, &word, 1, MSG_NOSIGNAL) == 1 ? 0 : -errno;
}

/* … and wait for its word. */
int op_sync_read(const struct step *step, struct context *context)
{
    (void)step;
    char word;
    ssize_t got = recv(context->sync, &word, 1, 0);
    if (got < 0)
        return -errno;
    return got == 1 ? 0 : -EPIPE; /* the keeper has gone */
}

/*
 * Stop until somebody continues us, and tell the keeper before. That works since we
 * are not pid 1, on which the kernel lets no stop signal of its own namespace act.
 */
int op_stop(const struct step *step, struct context *context)
{
    (void)step;
    const char word = SYNC_STOPS;
    if (send(context->sync, &word, 1, MSG_NOSIGNAL) != 1)
        return -errno;
    return (int)sys_result(syscall(SYS_kill, (pid_t)syscall(SYS_getpid), SIGSTOP));
}

/* The keeper is our tracer until our exec, where it leaves us stopped. */
int op_ptrace_me(const struct step *step, struct context *context)
{
    (void)step;
    (void)context;
    return (int)sys_result(ptrace(PTRACE_TRACEME, 0, NULL, NULL));
}
