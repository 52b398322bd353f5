/*
 * The keeper while a program runs: one poll over the program's pidfd, the
 * control socket, init, and the captured streams, until the earliest time at
 * which a limit could be reached (limit.c).
 *
 * Whoever ends the program writes down why (enum cause), once; a signal number
 * alone says nothing about who sent it.
 */
#define _GNU_SOURCE
#include "watch.h"

#include "hear.h"
#include "limit.h"
#include "listener.h"
#include "notes.h"
#include "sys.h"
#include "trace.h"

#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/wait.h>

enum { STOP_LIMIT_S = 1 };

static bool fd_index_valid(int32_t index, unsigned fd_count)
{
    return index >= -1 && index < (int32_t)fd_count;
}

bool watch_valid(const struct wire_watch *limits, unsigned fd_count)
{
    return fd_index_valid(limits->sink[0], fd_count) &&
           fd_index_valid(limits->sink[1], fd_count) &&
           fd_index_valid(limits->cpu_fd, fd_count) &&
           fd_index_valid(limits->procs_fd, fd_count) &&
           fd_index_valid(limits->ledger, fd_count) &&
           fd_index_valid(limits->notes_fd, fd_count) && limits->cpus > 0 &&
           limits->cpus <= 65536 && limits->wall_ns >= 0 && limits->cpu_ns >= 0 &&
           limits->idle_ns >= 0 && limits->memory_bytes >= 0 && limits->output_bytes >= 0;
}

void watch_init(struct watch *watch, struct box *box, const struct frame *frame, int control,
                const struct report *report)
{
    const struct wire_watch *limits = &frame->request.watch;
    *watch = (struct watch){
        .box = box,
        .limits = limits,
        .report = report,
        .run_id = frame->request.run_id,
        .control = control,
        .cpu_fd = limits->cpu_fd < 0 ? -1 : frame->fds[limits->cpu_fd],
        .procs_fd = limits->procs_fd < 0 ? -1 : frame->fds[limits->procs_fd],
        .follow = frame->request.flags & REQUEST_FOLLOW,
        .program = -1,
        .pidfd = -1,
        .sync = -1,
        .listener = -1,
        .ledger = limits->ledger < 0 ? -1 : frame->fds[limits->ledger],
        .ends = {-1, -1},
        .notify = -1,
        .notes_fd = limits->notes_fd < 0 ? -1 : frame->fds[limits->notes_fd],
        .counter = -1,
        .stops = -1,
        .memory_peak = -1,
    };
    if (watch->cpu_fd >= 0)
        watch->cpu_base_ns = limit_read_cpu(watch->cpu_fd, limits->cpu_format);
}

void watch_close(struct watch *watch)
{
    close_fd(&watch->pidfd);
    close_fd(&watch->sync);
    close_fd(&watch->notify);
    close_fd(&watch->ends[0]);
    close_fd(&watch->ends[1]);
    if (watch->heard) { /* releasing it takes a while: when the grader has its answer */
        watch->box->heard = true;
        watch->box->listener = atomic_load(&watch->report->listener);
    }
    if (watch->supervisor)
        supervise_close(watch->supervisor);
    watch->box->children = -1;
    close_fd(&watch->counter);
    capture_close(&watch->capture);
}

/* The program at once, all else through init, which misses nobody. */
void watch_kill(struct watch *watch)
{
    (void)syscall(SYS_pidfd_send_signal, watch->pidfd, SIGKILL, NULL, 0);
    if (watch->box->has_init)
        box_kill(watch->box);
    else if (watch->program > 0)
        (void)kill(-watch->program, SIGKILL); /* its process group, if it has made one */
}

void watch_end(struct watch *watch, enum cause cause)
{
    if (watch->cause != CAUSE_NONE || watch->error < 0)
        return;
    watch->cause = cause;
    if (!watch->reaped) /* else `finish` ends the rest, and waits for it */
        watch_kill(watch);
}

void watch_fail(struct watch *watch, enum location location, int error)
{
    if (watch->error < 0)
        return;
    watch->error = error;
    watch->error_location = location;
    if (!watch->reaped)
        watch_kill(watch);
}

bool watch_tree_empty(const struct watch *watch)
{
    char text[2];
    if (watch->procs_fd < 0)
        return false;
    ssize_t got = pread(watch->procs_fd, text, sizeof text, 0);
    return got == 0 || (got > 0 && text[0] == '0');
}

void watch_output(struct watch *watch)
{
    const struct stream *stream = watch->capture.stream;
    int64_t total =
        (stream[0].seen > 0 ? stream[0].seen : 0) + (stream[1].seen > 0 ? stream[1].seen : 0);
    if (watch->limits->output_bytes && total > watch->limits->output_bytes)
        watch_end(watch, CAUSE_OUTPUT);
}

static void grader_gone(struct watch *watch)
{
    watch->gone = true;
    watch_kill(watch);
}

static void on_control(struct watch *watch)
{
    static struct frame frame;
    int result = frame_receive(watch->control, &frame);
    if (result <= 0) { /* or it talks nonsense, which ends it too */
        grader_gone(watch);
        return;
    }
    char word = 0;
    bool abort = frame.request.flags & REQUEST_ABORT;
    if (frame.request.kind == REQUEST_KILL && frame.request.run_id == watch->run_id)
        watch_end(watch,
                  frame.request.flags & REQUEST_OVERFLOW ? CAUSE_OUTPUT : CAUSE_CANCELLED);
    else if (frame.request.kind == REQUEST_SYNC && abort) {
        watch->aborted = true;
        watch_kill(watch);
    } else if (frame.request.kind == REQUEST_ANSWER && frame.request.run_id == watch->run_id) {
        hear_answer(watch, frame.request.clone_flags);
    } else if (frame.request.kind == REQUEST_SYNC && watch->sync >= 0) {
        watch->synchronising = false;
        watch->started_ns = clock_ns(CLOCK_MONOTONIC); /* the callback is no set-up of ours */
        (void)send(watch->sync, &word, 1,
                   MSG_NOSIGNAL); /* fails if it has died: seen at its end */
    }
    frame_release(&frame);
}

static void tell(struct watch *watch, enum reply_kind kind)
{
    struct wire_reply reply = reply_make(kind, watch->run_id);
    reply.pid = watch->program;
    if (reply_send(watch->control, &reply, NULL, 0) < 0)
        grader_gone(watch);
}

/*
 * Wait until it has stopped, as it is about to. Returns false if it has ended, or has gone
 * on to its exec. Somebody may continue it before it has stopped, of which nothing tells,
 * and we are deaf meanwhile: so not for ever.
 */
static bool await_stop(const struct watch *watch)
{
    const int events = WSTOPPED | WCONTINUED | WEXITED | WNOWAIT | WNOHANG;
    const struct timespec pause = timespec_of(MS_NS / 10);
    const int64_t end = clock_ns(CLOCK_MONOTONIC) + NS_PER_S * STOP_LIMIT_S;
    while (clock_ns(CLOCK_MONOTONIC) < end) {
        siginfo_t info = {0};
        struct pollfd exec = {.fd = watch->notify, .events = POLLIN};
        int gone_on = poll(&exec, 1, 0);
        if (waitid(P_PID, (id_t)watch->program, &info, events) < 0)
            return false;
        if (info.si_pid)
            return info.si_code == CLD_STOPPED || info.si_code == CLD_TRAPPED ||
                   info.si_code == CLD_CONTINUED;
        if (gone_on > 0)
            return false;
        (void)nanosleep(&pause, NULL);
    }
    return true;
}

/* The program waits before its exec, for the grader's callback, or has stopped itself. */
static void on_sync(struct watch *watch)
{
    char word;
    if (recv(watch->sync, &word, 1, MSG_DONTWAIT) != 1) {
        close_fd(&watch->sync); /* it has exec'ed or died */
        return;
    }
    if (word == SYNC_SEIZE) {
        int error = watch->supervisor ? supervise_seize(watch->supervisor, watch->sync)
                                      : trace_seize(watch);
        if (error < 0)
            watch_fail(watch, LOCATION_PTRACE_ME, error);
        return;
    }
    watch->synchronising = true; /* for as long as the callback takes, or a tracer */
    if (word == SYNC_WAITS)
        tell(watch, REPLY_SYNC);
    else if (await_stop(watch))
        tell(watch, REPLY_STOPPED);
}

/*
 * Traced, it stops with SIGTRAP when its exec has happened. We let it go, but stopped:
 * whoever attaches then sees its first instruction. It runs, even if somebody has
 * continued it by now.
 */
static void leave_stopped(const struct watch *watch)
{
    if (await_stop(watch) && ptrace(PTRACE_DETACH, watch->program, NULL, SIGSTOP) == 0)
        (void)await_stop(watch);
}

/* Our end of a close-on-exec pipe has ended: exec, or the end of the child. */
static void on_notify(struct watch *watch)
{
    close_fd(&watch->notify);
    if (atomic_load(&watch->report->state) != REPORT_EXEC)
        return;
    if (watch->traced)
        leave_stopped(watch);
    tell(watch, REPLY_RUNNING);
}

/*
 * A program that a child of its own traces is a zombie that only the tracer sees:
 * wait4 must not block on it. The tracer is killed with the rest, and it is tried
 * again.
 */
static void on_end(struct watch *watch)
{
    const struct timespec pause = timespec_of(MS_NS);
    const int64_t ended_ns = clock_ns(CLOCK_MONOTONIC);
    int error = watch->noted ? 0 : notes_take_when_gone(watch);
    watch->noted = true;
    if (error < 0)
        watch_fail(watch, LOCATION_WATCH, error);
    pid_t pid = wait4(watch->program, &watch->status, WNOHANG, &watch->usage);
    if (pid == 0) {
        if (watch->box->kills_asked == 0)
            watch_kill(watch);
        (void)nanosleep(&pause, NULL);
        return;
    }
    if (pid < 0 && errno == EINTR)
        return;
    watch->reaped = true;
    watch->ended_ns = ended_ns - watch->reading_ns;
    if (pid < 0)
        watch_fail(watch, LOCATION_WATCH, -errno);
}

static void on_stream(struct watch *watch, struct stream *stream)
{
    int error = capture_drain(stream);
    if (error < 0) {
        close_fd(&stream->source);
        watch_fail(watch, LOCATION_PIPE, error);
    }
    watch_output(watch);
}

/* It, or some of its tree, have stopped for us to decide. */
static void on_supervised(struct watch *watch)
{
    struct call call;
    struct decision decision;
    int result = supervise(watch->supervisor, &call, &decision);
    if (result < 0)
        watch_fail(watch, LOCATION_WATCH, result);
    else if (result > 0)
        hear_end_for(watch, &call);
}

static bool ready(const struct pollfd *fd)
{
    return fd->revents != 0;
}

int watch_program(struct watch *watch)
{
    enum {
        PROGRAM,
        CONTROL,
        GRADER,
        INIT,
        SYNC,
        NOTIFY,
        LISTENER,
        SUPERVISED,
        STOPS,
        STDOUT,
        STDERR,
        FDS
    };
    while (!watch->reaped) {
        int64_t next = limit_check(watch), look = hear_find(watch);
        next = look < next ? look : next;
        bool ending = watch->cause != CAUSE_NONE || watch->error < 0 || watch->gone;
        int64_t wait_ns = next - clock_ns(CLOCK_MONOTONIC);
        struct timespec timeout = timespec_of(wait_ns > 0 ? wait_ns : 0);
        struct pollfd fds[FDS] = {
            [PROGRAM] = {.fd = watch->pidfd, .events = POLLIN},
            [CONTROL] = {.fd = watch->gone ? -1 : watch->control, .events = POLLIN},
            [GRADER] = {.fd = watch->gone ? -1 : watch->box->grader, .events = POLLIN},
            [INIT] = {.fd = watch->box->init_pidfd, .events = POLLIN},
            [SYNC] = {.fd = watch->sync, .events = POLLIN},
            [NOTIFY] = {.fd = watch->notify, .events = POLLIN},
            [LISTENER] = {.fd = watch->heard_all || !hear_has_room() ? -1 : watch->listener,
                          .events = POLLIN},
            [SUPERVISED] = {.fd = watch->supervisor ? watch->supervisor->children : -1,
                            .events = POLLIN},
            [STOPS] = {.fd = watch->stops, .events = POLLIN},
            [STDOUT] = {.fd = watch->capture.stream[0].source, .events = POLLIN},
            [STDERR] = {.fd = watch->capture.stream[1].source, .events = POLLIN},
        };
        if (watch->error < 0)
            fds[INIT].fd = -1; /* it has ended and stays ready */
        int events = ppoll(fds, FDS, next == INT64_MAX || ending ? NULL : &timeout, NULL);
        if (events < 0 && errno != EINTR) {
            watch_fail(watch, LOCATION_WATCH, -errno);
            on_end(watch); /* which waits a little where it has not ended yet */
        }
        if (events <= 0)
            continue; /* a time has come, or EINTR */
        if (ready(&fds[SYNC]))
            on_sync(watch);
        if (ready(&fds[NOTIFY]))
            on_notify(watch);
        if (ready(&fds[LISTENER]))
            hear_notice(watch, fds[LISTENER].revents);
        if (ready(&fds[SUPERVISED]))
            on_supervised(watch);
        if (ready(&fds[STOPS]))
            trace_events(watch);
        for (int i = 0; i < 2; i++)
            if (ready(&fds[STDOUT + i]))
                on_stream(watch, &watch->capture.stream[i]);
        if (ready(&fds[CONTROL]))
            on_control(watch);
        if (ready(&fds[GRADER]))
            grader_gone(watch);
        if (ready(&fds[PROGRAM]))
            on_end(watch);
        else if (ready(&fds[INIT]))
            watch_fail(watch, LOCATION_INIT, -ECHILD);
    }
    trace_end(watch);
    return watch->gone ? -1 : 0;
}
