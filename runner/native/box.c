/*
 * A sandbox: its namespaces, made by starting init in them, then joined by the
 * keeper, so that every program it forks is in them at no cost.
 *
 * keeper                          init
 * EARLY steps: open what is bound
 * clone(namespaces) ------------> waits
 * MAPS steps: its id maps
 * GO ---------------------------> SETUP steps: mounts, pivot_root, names, ids
 *       <------------------------ READY
 * setns(init's namespaces)
 * JOINED -----------------------> drops "dumpable"
 *       <------------------------ SEALED
 * JOINED steps: own ids, bounding set
 */
#define _GNU_SOURCE
#include "box.h"

#include "birth.h"
#include "init.h"
#include "sys.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>

enum { INIT_TIMEOUT_MS = 10000 };

pid_t fork_pidfd(unsigned long flags, int *pidfd)
{
    *pidfd = -1;
    return (pid_t)sys_result(
        syscall(SYS_clone, flags | CLONE_PIDFD_FLAG | SIGCHLD, NULL, pidfd, NULL, NULL));
}

static int box_fail(struct report *report, enum location location, int error)
{
    report_failure(report, location, error, -1, -1);
    return -1;
}

/* Wait for a word of init's. Returns it, or -errno: ECHILD if init has ended. */
static int init_listen(const struct box *box, int timeout_ms)
{
    char byte = 0;
    struct pollfd fd = {.fd = box->init_socket, .events = POLLIN};
    int ready = poll(&fd, 1, timeout_ms);
    if (ready <= 0)
        return ready < 0 ? -errno : -ETIMEDOUT;
    ssize_t got = recv(box->init_socket, &byte, 1, MSG_DONTWAIT);
    if (got != 1)
        return got < 0 ? -errno : -ECHILD;
    return byte;
}

static int init_expect(const struct box *box, enum init_word word, int timeout_ms)
{
    int heard = init_listen(box, timeout_ms);
    if (heard < 0)
        return heard;
    return heard == (int)word ? 0 : -EPROTO;
}

static int init_say(const struct box *box, enum init_word word)
{
    char byte = (char)word;
    if (send(box->init_socket, &byte, 1, MSG_NOSIGNAL) == 1)
        return 0;
    return errno == EPIPE ? -ECHILD : -errno; /* it has ended */
}

/*
 * setns with a pidfd joins all at once (Linux 5.8). The user namespace is
 * entered first, and its capabilities then allow the others.
 */
static int join_namespaces(const struct box *box, unsigned long flags)
{
    return setns(box->init_pidfd, (int)(flags & CLONE_NEW_ALL)) < 0 ? -errno : 0;
}

static int clone_init(struct box *box, struct report *report, unsigned long flags)
{
    int sockets[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0)
        return box_fail(report, LOCATION_INIT, errno);
    box->has_init = flags & CLONE_NEWPID_FLAG;
    box->init_pid = fork_pidfd(flags, &box->init_pidfd);
    if (box->init_pid == 0) {
        (void)close(sockets[0]);
        init_main(&box->plan, &box->context, sockets[1], box->has_init);
    }
    (void)close(sockets[1]);
    box->init_socket = sockets[0];
    if (box->init_pid < 0)
        return box_fail(report, LOCATION_CLONE, (int)-box->init_pid);
    box->context.target = box->init_pid;
    return 0;
}

/* The rest of the conversation at the top, once init exists. */
static int raise_init(struct box *box, struct report *report, unsigned long flags)
{
    if (steps_run(&box->plan, PHASE_MAPS, &box->context) < 0)
        return -1;
    int error = init_say(box, INIT_GO);
    if (error == 0)
        error = init_expect(box, INIT_READY, -1);
    if (error < 0)
        return atomic_load(&report->state) == REPORT_FAILED
                   ? -1
                   : box_fail(report, LOCATION_INIT, -error);
    error = join_namespaces(box, flags);
    if (error < 0)
        return box_fail(report, LOCATION_SETNS, -error);
    error = init_say(box, INIT_JOINED);
    if (error == 0 && box->has_init)
        error = init_expect(box, INIT_SEALED, INIT_TIMEOUT_MS);
    if (error < 0)
        return box_fail(report, LOCATION_INIT, -error);
    if (!box->has_init) {
        (void)waitpid(box->init_pid, NULL, 0);
        box->init_pid = -1;
        close_fd(&box->init_pidfd);
        close_fd(&box->init_socket);
    }
    return 0;
}

static void close_slots(struct places *places)
{
    for (unsigned i = 0; i < WIRE_SLOTS_MAX; i++)
        close_fd(&places->slots[i]);
}

static int box_build(struct box *box, struct report *report)
{
    unsigned long flags = box->frame.request.clone_flags & CLONE_NEW_ALL;
    if (steps_run(&box->plan, PHASE_EARLY, &box->context) < 0)
        return -1;
    if (flags && (clone_init(box, report, flags) < 0 || raise_init(box, report, flags) < 0))
        return -1;
    close_slots(&box->places);
    if (steps_run(&box->plan, PHASE_JOINED, &box->context) < 0)
        return -1;
    if (!box->places.programs_use_proc)
        close_fd(&box->context.host_proc); /* what is not used cannot lead out */
    box->places.init = box->init_pid;
    if (box->has_init)
        box->proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC); /* -1: it mounts none */
    return steps_run(&box->plan, PHASE_CLEAN, &box->context);
}

void box_report(struct wire_reply *reply, const struct report *report)
{
    reply->kind = REPLY_FAILED;
    reply->location = report->location;
    reply->error = report->error;
    reply->index = report->index;
    reply->step = report->step;
    reply->status = report->status;
}

void box_refuse(struct wire_reply *reply, int error)
{
    reply->kind = error == -ENOMEM ? REPLY_FAILED : REPLY_REFUSED;
    if (error != -ENOMEM)
        return;
    reply->location = LOCATION_CLONE;
    reply->error = ENOMEM;
}

int box_start(struct box *box, struct frame *frame, struct report *report,
              struct wire_reply *reply)
{
    *reply = reply_make(REPLY_STARTED, frame->request.run_id);
    frame_move(&box->frame, frame);
    box->context = (struct context){
        .fds = box->frame.fds,
        .fd_count = box->frame.fd_count,
        .pipes = {-1, -1},
        .sync = -1,
        .sync_peer = -1,
        .notify = -1,
        .ruleset = -1,
        .host_proc = -1,
        .places = &box->places,
        .report = report,
    };
    for (unsigned i = 0; i < WIRE_SLOTS_MAX; i++)
        box->places.slots[i] = -1;
    box->places.queues_fd = -1;
    box->places.programs_use_proc = false;
    box->places.net.directory = -1;
    for (unsigned i = 0; i < TRACES_NET; i++)
        box->places.net.file[i] = -1;
    box->places.time_namespace = false;
    box->places.clock_shift_ns = 0;
    box->init_pid = -1;
    box->init_pidfd = box->init_socket = box->proc = -1;
    box->numbers = birth_numbers();
    memset(report, 0, sizeof *report);
    int error = plan_decode(&box->plan, box->frame.plan, box->frame.request.plan_bytes,
                            box->frame.fd_count, &reply->step);
    if (error < 0) {
        box_refuse(reply, error);
        return -1;
    }
    if (box_build(box, report) < 0) {
        box_report(reply, report);
        box_end(box);
        return -1;
    }
    reply->pid = box->init_pid;
    box->started = true;
    return 0;
}

void box_kill(struct box *box)
{
    if (box->has_init && init_say(box, INIT_KILL) == 0)
        box->kills_asked++;
}

/*
 * Reap children that are neither init nor the program, which has been reaped:
 * a program without a filter may have given us some by CLONE_PARENT.
 */
static void reap_adopted(struct box *box)
{
    struct report *report = box->context.report;
    struct rusage usage;
    pid_t pid;
    while ((pid = wait4(-1, NULL, WNOHANG | __WALL, &usage)) > 0) {
        if (pid == box->init_pid)
            box->init_pid = -1; /* its socket tells */
        atomic_fetch_add(&report->orphans_user_ns, timeval_ns(usage.ru_utime));
        atomic_fetch_add(&report->orphans_system_ns, timeval_ns(usage.ru_stime));
    }
}

/*
 * Hear init's answer. What we trace is init's to reap only when we have: it would wait for
 * us while we wait for it.
 */
static int await_answer(struct box *box)
{
    const int64_t end = clock_ns(CLOCK_MONOTONIC) + INIT_TIMEOUT_MS * MS_NS;
    struct signalfd_siginfo signal;
    struct pollfd fds[2] = {{.fd = box->init_socket, .events = POLLIN},
                            {.fd = box->children, .events = POLLIN}};
    if (box->children < 0)
        return init_listen(box, INIT_TIMEOUT_MS);
    reap_adopted(box);
    while (clock_ns(CLOCK_MONOTONIC) < end) {
        if (poll(fds, 2, INIT_TIMEOUT_MS) > 0 && fds[0].revents)
            return init_listen(box, 0);
        while (read(box->children, &signal, sizeof signal) > 0)
            continue;
        reap_adopted(box);
    }
    return -ETIMEDOUT;
}

/* Ask once more, and hear all answers. Returns the last, or -errno. */
static int ask_to_kill(struct box *box)
{
    int heard = init_say(box, INIT_KILL);
    if (heard < 0)
        return heard;
    box->kills_asked++;
    while (box->kills_asked > 0) {
        heard = await_answer(box);
        if (heard < 0)
            return heard;
        box->kills_asked--;
    }
    return heard;
}

int box_empty(struct box *box)
{
    int64_t end = clock_ns(CLOCK_MONOTONIC) + INIT_TIMEOUT_MS * MS_NS;
    const struct timespec pause = timespec_of(MS_NS);
    if (!box->has_init)
        return 0;
    for (;;) {
        int heard = ask_to_kill(box);
        if (heard < 0)
            return heard;
        reap_adopted(box);
        if (heard == INIT_EMPTY)
            return 0;
        if (clock_ns(CLOCK_MONOTONIC) > end)
            return -ETIMEDOUT;
        (void)nanosleep(&pause, NULL); /* what we are to reap is still dying */
    }
}

void box_clean(struct box *box)
{
    struct report *report = box->context.report;
    atomic_store(&report->state, REPORT_SETUP);
    if (steps_run(&box->plan, PHASE_CLEAN, &box->context) == 0)
        return;
    box->damaged = true;
    box->damage = reply_make(REPLY_FAILED, 0);
    box_report(&box->damage, report);
    box->damage.step = -1; /* of our plan, which is not that of the run that is told */
}

int box_files(struct box *box, struct frame *frame, struct report *report,
              struct wire_reply *reply)
{
    struct plan plan;
    struct context context = box->context;
    context.fds = frame->fds;
    context.fd_count = frame->fd_count;
    context.opened = -1;
    int error = plan_decode(&plan, frame->plan, frame->request.plan_bytes, frame->fd_count,
                            &reply->step);
    if (error < 0) {
        box_refuse(reply, error);
        return -1;
    }
    memset(report, 0, sizeof *report);
    reply->step = -1;
    reply->kind = REPLY_DONE;
    if (steps_run(&plan, PHASE_FILES, &context) < 0) {
        box_report(reply, report);
        close_fd(&context.opened);
    }
    (void)file_ids(geteuid(), getegid());     /* its own, so that it is always allowed */
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); /* a change of ids makes it fs.suid_dumpable */
    plan_free(&plan);
    return context.opened;
}

void box_ping(const struct frame *frame, struct box *box, struct wire_reply *reply)
{
    int error = box_empty(box);
    *reply = reply_make(error < 0 ? REPLY_FAILED : REPLY_DONE, frame->request.run_id);
    reply->location = error < 0 ? LOCATION_INIT : LOCATION_NONE;
    reply->error = -error;
}

void box_end(struct box *box)
{
    if (!box->context.report)
        return; /* it was never started */
    if (box->init_pid > 0) {
        /* It cannot end before we have reaped all our children in its namespace. */
        (void)kill(box->init_pid, SIGKILL);
        while (waitpid(-1, NULL, __WALL) != box->init_pid && errno != ECHILD)
            continue;
    }
    close_slots(&box->places);
    close_fd(&box->places.queues_fd);
    traces_close(&box->places);
    close_fd(&box->init_pidfd);
    close_fd(&box->init_socket);
    close_fd(&box->proc);
    close_fd(&box->numbers);
    close_fd(&box->context.host_proc);
    kept_release(&box->kept);
    plan_free(&box->plan);
    plan_free(&box->recent.plan);
    box->recent.size = 0;
    frame_release(&box->frame);
    box->init_pid = -1;
    box->started = false;
}
