/*
 * Programs that are run at set-up: outside by the keeper, inside by init. Nothing is
 * started unless each ends with 0: one that is missing, is killed, or takes too long
 * fails the step.
 */
#define _GNU_SOURCE
#include "box.h"
#include "sys.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

enum { WORDS_MAX = 1024 };

/* What the program is given. The arrays live until its exec. */
struct words {
    const char *argv[WORDS_MAX + 1];
    const char *envp[WORDS_MAX + 2];
    char pid[16];
    char pid_variable[32];
};

static int fill_words(struct words *words, const struct step *step, pid_t target)
{
    int64_t argc = step->arg[1];
    if (argc < 1 || argc > WORDS_MAX || argc > step->string_count ||
        step->string_count - argc > WORDS_MAX)
        return -E2BIG;
    (void)snprintf(words->pid, sizeof words->pid, "%d", target);
    (void)snprintf(words->pid_variable, sizeof words->pid_variable, "SANDBOX_PID=%d", target);
    for (int64_t i = 0; i < argc; i++)
        words->argv[i] = strcmp(step->strings[i], "{pid}") == 0 ? words->pid : step->strings[i];
    words->argv[argc] = NULL;
    unsigned count = 0;
    for (int64_t i = argc; i < step->string_count; i++)
        words->envp[count++] = step->strings[i];
    words->envp[count++] = words->pid_variable;
    words->envp[count] = NULL;
    return 0;
}

static int stream_of(const struct step *step, const struct context *context, int which)
{
    return step->arg[which] < 0 ? -1 : context->fds[step->arg[which]];
}

/* Its own session, so that all of it can be killed; nothing of ours but two fds. */
static _Noreturn void become(const struct words *words, int out, int err, struct report *report)
{
    sigset_t none;
    sigemptyset(&none);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int error = 0;
    if (setsid() < 0 || sigprocmask(SIG_SETMASK, &none, NULL) < 0 || null < 0)
        error = errno;
    /* Above the three first: no copy overwrites what is still needed. */
    int from[3] = {null, out < 0 ? null : out, err < 0 ? null : err};
    for (int i = 0; i < 3 && !error; i++)
        if ((from[i] = fcntl(from[i], F_DUPFD_CLOEXEC, 3)) < 0)
            error = errno;
    for (int i = 0; i < 3 && !error; i++)
        if (dup2(from[i], i) < 0)
            error = errno;
    if (!error) {
        (void)execve(words->argv[0], (char *const *)words->argv, (char *const *)words->envp);
        error = errno;
    }
    atomic_store(&report->hook_error, error);
    _exit(127);
}

/* Wait for its end; kill it if that takes too long or the grader goes. Returns 0 or -errno. */
static int await_end(pid_t pid, int pidfd, int64_t timeout_ns, int *status)
{
    int64_t end = clock_ns(CLOCK_MONOTONIC) + timeout_ns;
    struct pollfd fds[2] = {{.fd = pidfd, .events = POLLIN}, {.fd = CONTROL_FD}};
    int ready;
    do {
        int64_t left = end - clock_ns(CLOCK_MONOTONIC);
        struct timespec timeout = timespec_of(left > 0 ? left : 0);
        ready = ppoll(fds, 2, &timeout, NULL);
    } while (ready < 0 && errno == EINTR);
    int error = ready < 0 ? -errno : ready == 0 ? -ETIMEDOUT : 0;
    if (ready > 0 && !fds[0].revents)
        error = -EPIPE; /* the other end of the control socket is closed */
    if (error < 0) {
        (void)kill(-pid, SIGKILL);
        (void)kill(pid, SIGKILL); /* it may not have come to its own group yet */
    }
    while (waitpid(pid, status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return error;
}

/*
 * args: time-out in ns, number of strings that are arguments (the others are its
 * environment), fds for stdout and stderr. An argument "{pid}" is the sandbox's first
 * process, as who runs the program sees it.
 */
int op_hook(const struct step *step, struct context *context)
{
    static struct words words;
    int pidfd, status = 0;
    pid_t target = context->target ? context->target : (pid_t)syscall(SYS_getpid);
    int error = fill_words(&words, step, target);
    if (error < 0)
        return error;
    atomic_store(&context->report->hook_error, 0);
    pid_t pid = fork_pidfd(0, &pidfd);
    if (pid == 0)
        become(&words, stream_of(step, context, 2), stream_of(step, context, 3),
               context->report);
    if (pid < 0)
        return pid;
    error = await_end(pid, pidfd, step->arg[0], &status);
    close_fd(&pidfd);
    if (error < 0)
        return error;
    if (atomic_load(&context->report->hook_error))
        return -atomic_load(&context->report->hook_error);
    context->report->status = status;
    return status == 0 ? 0 : -ECANCELED;
}
