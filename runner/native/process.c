/* Operations on the process itself, up to its exec. */
#define _GNU_SOURCE
#include "steps.h"
#include "sys.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>

/*
 * A symlink that a program has planted may lead through /proc/self/fd out of the root: by
 * what we hold, or by what our caller has given us. The kernel tells (getcwd(2)).
 */
int op_chdir(const struct step *step, struct context *context)
{
    (void)context;
    char path[PATH_MAX];
    if (chdir(step->strings[0]) < 0 || syscall(SYS_getcwd, path, sizeof path) < 0)
        return -errno;
    return path[0] == '/' ? 0 : -ELOOP; /* "(unreachable)" */
}

int op_setsid(const struct step *step, struct context *context)
{
    (void)step;
    (void)context;
    return setsid() < 0 ? -errno : 0;
}

/* Its pid in its namespace, for whoever follows its tree through /proc. */
int op_getpid(const struct step *step, struct context *context)
{
    (void)step;
    long pid = sys_result(syscall(SYS_getpid));
    if (pid < 0)
        return (int)pid;
    context->report->pid_inside = (pid_t)pid;
    return 0;
}

/*
 * Its fd 0 becomes its session's controlling terminal. Not stolen from another
 * session, which the kernel would let root do.
 */
int op_ctty(const struct step *step, struct context *context)
{
    (void)step;
    (void)context;
    return (int)sys_result(ioctl(0, TIOCSCTTY, 0));
}

/* arg: nice value */
int op_nice(const struct step *step, struct context *context)
{
    (void)context;
    return (int)sys_result(setpriority(PRIO_PROCESS, 0, (int)step->arg[0]));
}

/* blob: the CPUs' bit mask, in whole words */
int op_affinity(const struct step *step, struct context *context)
{
    (void)context;
    return (int)sys_result(
        syscall(SYS_sched_setaffinity, 0, (unsigned)step->length, step->data));
}

/* arg: flags of personality(2) */
int op_personality(const struct step *step, struct context *context)
{
    (void)context;
    return (int)sys_result(syscall(SYS_personality, (unsigned long)step->arg[0]));
}

/*
 * Our files are root's while we are not dumpable (proc(5)). If we are not root, we are
 * for that long: no program of ours is alive to look.
 */
int open_own(const struct context *context, const char *name)
{
    const int flags = O_WRONLY | O_CLOEXEC;
    int fd = openat(context->host_proc, name, flags);
    if (fd >= 0 || errno != EACCES)
        return fd < 0 ? -errno : fd;
    if (prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) < 0)
        return -errno;
    fd = openat(context->host_proc, name, flags);
    int error = fd < 0 ? -errno : 0;
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        error = -errno;
    if (error < 0)
        close_fd(&fd);
    return error < 0 ? error : fd;
}

/*
 * string: the value. Through the caller's /proc: the sandbox may have none. It is closed
 * at once, before any path is looked up in which a symlink could lead through
 * /proc/self/fd to it, and from there to the host's files.
 */
int op_oom_score_adj(const struct step *step, struct context *context)
{
    cleanup_fd int fd = open_own(context, "self/oom_score_adj");
    close_fd(&context->host_proc);
    if (fd < 0)
        return fd;
    return write_text(fd, step->strings[0], strlen(step->strings[0]));
}

/* arg: signal. A change of uid clears it (prctl(2)), so it comes after setuid. */
int op_parent_death(const struct step *step, struct context *context)
{
    (void)context;
    return (int)sys_result(prctl(PR_SET_PDEATHSIG, (unsigned long)step->arg[0], 0, 0, 0));
}

int op_umask(const struct step *step, struct context *context)
{
    (void)context;
    /* It cannot fail but by a filter that somebody else has put on us. */
    return syscall(SYS_umask, (unsigned)step->arg[0]) < 0 ? -errno : 0;
}

/*
 * args: masks of what is ignored and of what is blocked, bit n-1 for signal n. The
 * keeper has reset all dispositions at its start, so all else is at its default; and
 * it blocks some itself, which ends here.
 */
int op_signals(const struct step *step, struct context *context)
{
    (void)context;
    const uint64_t ignored = (uint64_t)step->arg[0], blocked = (uint64_t)step->arg[1];
    for (int number = 1; ignored >> (number - 1) && number <= KERNEL_SIGNALS; number++) {
        const struct kernel_sigaction ignore = {.handler = SIG_IGN};
        if ((ignored >> (number - 1) & 1) &&
            syscall(SYS_rt_sigaction, number, &ignore, NULL, sizeof ignore.mask) < 0)
            return -errno;
    }
    return (int)sys_result(
        syscall(SYS_rt_sigprocmask, SIG_SETMASK, &blocked, NULL, sizeof blocked));
}

int op_argv(const struct step *step, struct context *context)
{
    context->argv = step->strings;
    return 0;
}

int op_envp(const struct step *step, struct context *context)
{
    context->envp = step->strings;
    return 0;
}

/*
 * strings: paths to try, in this order, as execvp(3) does: go on where there is
 * no such file, remember that one was not allowed. arg: a sixth argument, which the kernel
 * ignores but a filter sees: by it the filter knows this exec from any that the program makes.
 */
int op_exec(const struct step *step, struct context *context)
{
    int error = ENOENT;
    if (!context->argv || !context->envp)
        return -EINVAL;
    report_exec(context->report);
    for (unsigned i = 0; i < step->string_count; i++) {
        (void)syscall(SYS_execve, step->strings[i], context->argv, context->envp, 0L, 0L,
                      step->arg[0]);
        if (errno == EACCES)
            error = EACCES;
        else if (errno != ENOENT && errno != ENOTDIR)
            return -errno;
        else if (error != EACCES)
            error = errno;
    }
    return -error;
}

/*
 * arg: fd of a file to execute, which needs no path: one that is in no directory of the
 * sandbox, or a sealed memfd; and the sixth argument, as of op_exec. The fd is closed by the
 * exec, so the interpreter of a script could not open it (execveat(2)): ENOENT.
 */
int op_exec_fd(const struct step *step, struct context *context)
{
    if (!context->argv || !context->envp)
        return -EINVAL;
    if (step->arg[0] < 0)
        return -EBADF;
    report_exec(context->report);
    return (int)sys_result(syscall(SYS_execveat, context->fds[step->arg[0]], "", context->argv,
                                   context->envp, AT_EMPTY_PATH, step->arg[1]));
}
