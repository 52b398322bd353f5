/* Operations that take something away: limits, cgroups, keys, filters. */
#define _GNU_SOURCE
#include "listener.h"
#include "steps.h"
#include "sys.h"

#include <sys/prctl.h>
#include <sys/resource.h>

#ifndef SYS_seccomp
#define SYS_seccomp 317
#endif

#define SECCOMP_SET_MODE_FILTER_OP 1
#define KEYCTL_JOIN_SESSION_KEYRING_OP 1

struct filter_program {
    unsigned short length; /* in instructions of 8 bytes */
    const void *filter;
};

/* arg: resource, soft, hard. prlimit64: 64-bit limits on every architecture. */
int op_rlimit(const struct step *step, struct context *context)
{
    (void)context;
    const uint64_t limit[2] = {(uint64_t)step->arg[1], (uint64_t)step->arg[2]};
    return (int)sys_result(syscall(SYS_prlimit64, 0, (unsigned)step->arg[0], limit, NULL));
}

/*
 * arg: fd of a cgroup's `tasks` or `cgroup.procs`. "0" is the writer itself: it
 * needs no pid and no permission of its own, for the kernel checks the opener's
 * credentials.
 */
int op_enter_cgroup(const struct step *step, struct context *context)
{
    if (step->arg[0] < 0)
        return -EBADF;
    if (context->report->cpu_at_enter_ns == 0)
        context->report->cpu_at_enter_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    return write(context->fds[step->arg[0]], "0", 1) == 1 ? 0 : -errno;
}

int op_no_new_privs(const struct step *step, struct context *context)
{
    (void)step;
    (void)context;
    return (int)sys_result(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
}

/*
 * A new, empty session keyring, or the program would hold the caller's keys
 * (keyrings(7)). A kernel without keyrings has none to hide.
 */
int op_session_keyring(const struct step *step, struct context *context)
{
    (void)step;
    (void)context;
    long result = sys_result(syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING_OP, NULL));
    return result == -ENOSYS || result >= 0 ? 0 : (int)result;
}

/* arg: 0 or 1. When 0, nobody of the same uid reads our memory, fds or environment. */
int op_dumpable(const struct step *step, struct context *context)
{
    (void)context;
    return (int)sys_result(prctl(PR_SET_DUMPABLE, (unsigned long)step->arg[0], 0, 0, 0));
}

/*
 * blob: struct sock_filter[]; args: flags of seccomp(2), and enum hearing. Where the keeper
 * cannot hear of kills, the kernel kills and says nothing: before Linux 5.0 (EINVAL), where
 * somebody listens to us already (EBUSY), where the program may have no more open files
 * than it was given (EMFILE). Of more it has to hear, for it was asked to tell.
 */
int op_seccomp(const struct step *step, struct context *context)
{
    if (step->length % 8 || step->length / 8 > UINT16_MAX)
        return -EINVAL;
    const struct filter_program program = {
        .length = (unsigned short)(step->length / 8),
        .filter = step->data,
    };
    report_exec(context->report);
    int listener = -EOPNOTSUPP;
    if (context->heard) {
        listener = listener_install(context->heard, (unsigned)step->arg[0]);
        atomic_store(&context->report->listener, listener < 0 ? -1 : listener);
    }
    if (listener >= 0)
        return 0;
    if (step->arg[1] > HEAR_KILLS || (context->heard && filter_asks(&context->heard->filter)))
        return listener;
    return (int)sys_result(
        syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER_OP, (unsigned)step->arg[0], &program));
}
