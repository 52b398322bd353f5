/*
 * init: sets the sandbox up (the SETUP steps), then is pid 1 in it. It reaps
 * what is orphaned, kills everything when the keeper says so, and ends with the
 * keeper, whereupon the kernel kills all that is left in the pid namespace.
 *
 * It is not exec'ed: it is the keeper's image with other namespaces. Before any
 * program runs it drops "dumpable", so that nothing inside can read its memory,
 * its fds or its environment, even with the same uid. From inside the namespace
 * no signal reaches it (pid_namespaces(7)).
 */
#define _GNU_SOURCE
#include "init.h"

#include "sys.h"

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>

static void say(int keeper, enum init_word word)
{
    char byte = (char)word;
    if (send(keeper, &byte, 1, MSG_NOSIGNAL) != 1)
        _exit(1); /* no keeper: the sandbox ends */
}

static char listen_to(int keeper)
{
    char byte = 0;
    ssize_t got;
    do
        got = recv(keeper, &byte, 1, 0);
    while (got < 0 && errno == EINTR);
    if (got != 1)
        _exit(0);
    return byte;
}

static void expect(int keeper, enum init_word word)
{
    if (listen_to(keeper) != (char)word)
        _exit(1);
}

static int64_t timeval_ns(struct timeval time)
{
    return (int64_t)time.tv_sec * NS_PER_S + (int64_t)time.tv_usec * 1000;
}

/* Reap until there is nothing to reap (WNOHANG) or no child at all (0). */
static void reap(struct report *report, int options)
{
    for (;;) {
        int status;
        struct rusage usage;
        pid_t pid = wait4(-1, &status, options, &usage);
        if (pid < 0 && errno == EINTR)
            continue;
        if (pid <= 0)
            return;
        atomic_fetch_add(&report->orphans_user_ns, timeval_ns(usage.ru_utime));
        atomic_fetch_add(&report->orphans_system_ns, timeval_ns(usage.ru_stime));
    }
}

/*
 * kill(-1) signals every process of the namespace but the caller under one lock,
 * and fork fails while a signal is pending: nothing escapes it. As each dies, its
 * children become ours, so waiting until we have none waits for all.
 */
static void kill_all(struct report *report)
{
    (void)kill(-1, SIGKILL); /* ESRCH: there is nobody */
    reap(report, 0);
}

static _Noreturn void serve(int keeper, int children, struct report *report)
{
    struct pollfd fds[2] = {{.fd = keeper, .events = POLLIN}, {.fd = children, .events = POLLIN}};
    for (;;) {
        if (poll(fds, 2, -1) < 0)
            continue; /* EINTR */
        if (fds[1].revents) {
            struct signalfd_siginfo info;
            if (read(children, &info, sizeof info) > 0)
                reap(report, WNOHANG);
        }
        if (fds[0].revents && listen_to(keeper) == INIT_KILL) {
            kill_all(report);
            say(keeper, INIT_EMPTY);
        }
    }
}

_Noreturn void init_main(const struct plan *plan, struct context *context, int keeper, bool stay)
{
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    expect(keeper, INIT_GO);
    if (steps_run(plan, PHASE_SETUP, context) < 0)
        _exit(1);
    /* A change of uid has cleared both; dumpable, so that the keeper may join us. */
    if (prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) < 0 || prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0) {
        report_failure(context->report, LOCATION_INIT, errno, -1, -1);
        _exit(1);
    }
    say(keeper, INIT_READY);
    expect(keeper, INIT_JOINED);
    if (!stay)
        _exit(0);
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 || sigprocmask(SIG_BLOCK, &child, NULL) < 0)
        _exit(1);
    int children = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
    if (children < 0)
        _exit(1);
    say(keeper, INIT_SEALED);
    serve(keeper, children, context->report);
}
