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

#include "control.h"
#include "sys.h"

#include <limits.h>

#include <signal.h>
#include <sys/epoll.h>
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

enum { REAP_AT_ONCE = 64 };

/*
 * Reap at most `most`, until there is nothing to reap (WNOHANG) or no child at all
 * (0). Returns whether there may be more.
 */
static bool reap(struct report *report, int options, int most)
{
    while (most > 0) {
        int status;
        struct rusage usage;
        pid_t pid = wait4(-1, &status, options, &usage);
        if (pid < 0 && errno == EINTR)
            continue;
        if (pid <= 0)
            return false;
        most--;
        atomic_fetch_add(&report->orphans_user_ns, timeval_ns(usage.ru_utime));
        atomic_fetch_add(&report->orphans_system_ns, timeval_ns(usage.ru_stime));
    }
    return true;
}

/*
 * kill(-1) signals every process of the namespace but the caller under one lock,
 * and fork fails while a signal is pending: nothing escapes it. As each dies, its
 * children become ours, so waiting until we have none waits for all but those
 * that made themselves the keeper's children (CLONE_PARENT): the second kill
 * finds these, zombies too, until the keeper has reaped them.
 */
static enum init_word kill_all(struct report *report)
{
    (void)kill(-1, SIGKILL); /* ESRCH: there is nobody */
    (void)reap(report, 0, INT_MAX);
    return kill(-1, SIGKILL) == 0 ? INIT_MORE : INIT_EMPTY;
}

static bool watch_fd(int epoll, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

/*
 * epoll and not poll, which fails when RLIMIT_NOFILE is below the number of fds:
 * a program with our uid may set our limits (prlimit(2) asks for no more).
 */
static _Noreturn void serve(int keeper, int children, struct report *report)
{
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0 || !watch_fd(epoll, keeper) || !watch_fd(epoll, children))
        _exit(1);
    say(keeper, INIT_SEALED);
    for (;;) {
        struct epoll_event event;
        struct signalfd_siginfo info;
        if (epoll_wait(epoll, &event, 1, -1) < 0) {
            if (errno != EINTR)
                _exit(1);
        } else if (event.data.fd == keeper) {
            if (listen_to(keeper) == INIT_KILL)
                say(keeper, kill_all(report));
        } else if (read(children, &info, sizeof info) > 0) {
            if (reap(report, WNOHANG, REAP_AT_ONCE))
                (void)raise(SIGCHLD); /* come back for the rest, but listen first */
        }
    }
}

_Noreturn void init_main(const struct plan *plan, struct context *context, int keeper,
                         bool stay)
{
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    expect(keeper, INIT_GO);
    close_fd(&context->host_proc); /* the keeper's: no path of the sandbox's may lead to it */
    if (steps_run(plan, PHASE_SETUP, context) < 0)
        _exit(1);
    close_fd(&context->host_proc);
    (void)close(CONTROL_FD); /* or the grader would not see at once that the keeper has ended */
    /* A change of uid has cleared both; dumpable, so that the keeper may join us. */
    if (prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) < 0 ||
        prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0) {
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
    serve(keeper, children, context->report);
}
