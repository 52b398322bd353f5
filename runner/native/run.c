/*
 * One run: fork, the PROGRAM steps and exec in the child; in the keeper a loop
 * over what can happen (watch.c), then the end of everything that the program
 * left behind, and the figures.
 */
#define _GNU_SOURCE
#include "run.h"

#include "birth.h"
#include "counter.h"
#include "explain.h"
#include "hear.h"
#include "inject.h"
#include "ledger.h"
#include "listener.h"
#include "notes.h"
#include "sys.h"
#include "trace.h"
#include "watch.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

enum { BUSY_TRIES = 50 }; /* a ms apart */

#define BORROW_LIMIT_NS NS_PER_S

/* What the program's process gets from launch. */
struct birth {
    const struct plan *plan;
    struct context context;
    bool borrows;
    int numbers; /* see birth.h */
};

/*
 * While the process borrows our memory we sleep, deaf to limits, to a cancel and to the
 * grader's end. A step that hangs (a frozen cgroup, a dead file server, a lease on the
 * file to execute) must not keep us so: this timer kills it. exec deletes timers.
 */
static int arm_overdue_timer(void)
{
    const struct timespec limit = timespec_of(BORROW_LIMIT_NS);
    const struct itimerspec once = {.it_value = limit};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGKILL};
    int timer;
    if (syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &timer) < 0 ||
        syscall(SYS_timer_settime, timer, 0, &once, NULL) < 0)
        return -errno;
    return 0;
}

static int program_main(void *argument)
{
    struct birth *birth = argument;
    int error = birth->borrows ? arm_overdue_timer() : 0;
    birth_count_anew(birth->numbers);
    if (!steps_have(birth->plan, OP_oom_score_adj))
        close_fd(&birth->context.host_proc); /* what is not used cannot lead out */
    if (error < 0)
        report_failure(birth->context.report, LOCATION_WATCH, -error, -1, -1);
    else
        (void)steps_run(birth->plan, PHASE_PROGRAM,
                        &birth->context); /* returns if a step failed */
    close_fd(&birth->context.ruleset);    /* it may be in the keeper's table */
    (void)syscall(SYS_exit_group, 127);
    __builtin_trap(); /* its filter does not even let it exit */
}

/*
 * Start the program's process. It borrows our memory until its exec, as vfork(2)
 * does: copying page tables, and then each page that it writes to, takes longer
 * than all its steps. That is safe here as it is not in a grader: we are one
 * thread, wait for it, and are not dumpable, and no other process of its uid is
 * alive to look. With a callback before its exec we may not wait: it gets a copy.
 */
static pid_t start_process(struct birth *birth, const struct box *box, int *pidfd)
{
    birth->numbers = box->numbers;
    unsigned long shared = birth->context.heard ? CLONE_FILES : 0;
    return birth_give(program_main, birth,
                      shared | (birth->borrows ? CLONE_VM | CLONE_VFORK : 0), box->has_init,
                      pidfd);
}

/*
 * The process shares our fds and looks up paths, of which none may lead to the caller's /proc,
 * by which we decide: that is in a socket until the exec. Where it is lost, calls are refused.
 */
static pid_t start_ruled(struct watch *watch, struct birth *birth)
{
    int *proc = &watch->box->context.host_proc, hidden = -1;
    int error = fd_hide(proc, &hidden);
    if (error < 0)
        return error;
    birth->context.host_proc = -1;
    pid_t program = start_process(birth, watch->box, &watch->pidfd);
    (void)fd_show(proc, &hidden);
    watch->rules->proc = *proc;
    return program;
}

/* Does the grader, or a tracer of its, have a say before the exec? */
static bool meets_grader(const struct plan *plan)
{
    for (unsigned i = 0; i < plan->count; i++)
        if (plan->steps[i].op == OP_stop ||
            (plan->steps[i].op == OP_sync_write && plan->steps[i].arg[0] != SYNC_SEIZE))
            return true;
    return false;
}

/* Does the program's process talk to us before its exec? */
static bool meets_keeper(const struct plan *plan)
{
    return steps_have(plan, OP_sync_write) || steps_have(plan, OP_stop);
}

/*
 * May it borrow our memory? Not where we have to answer it before its exec, be it only to
 * a notice of its filter; not where it is in another time namespace than we (EINVAL before
 * Linux 6.0).
 */
static bool may_borrow(const struct plan *plan, const struct box *box,
                       const struct heard *heard)
{
    return !meets_keeper(plan) && !steps_have(plan, OP_ptrace_me) &&
           !box->places.time_namespace && !(heard && listener_delays_exec(heard, plan));
}

/*
 * The filter of which we are to hear, or NULL. Then the process shares our fds, and so not
 * where it closes some of ours: that by which they meet, and the caller's /proc.
 */
static const struct heard *filter_to_hear(const struct plan *plan, const struct frame *frame,
                                          const struct box *box)
{
    if (meets_keeper(plan) || frame->request.flags & REQUEST_NOTIFY_EXEC ||
        (box->context.host_proc >= 0 && !rules_by_notice(plan)))
        return NULL;
    return listener_wanted(plan);
}

static void reply_failure(struct wire_reply *reply, enum location location, int error)
{
    reply->kind = REPLY_FAILED;
    reply->location = (int)location;
    reply->error = error;
}

/* What is told of the program only where it was asked for. Returns 0 or -errno. */
static int observe(struct watch *watch, const struct frame *frame)
{
    const uint32_t flags = frame->request.flags;
    if (flags & (REQUEST_COUNT | REQUEST_MUST_COUNT)) {
        watch->counter = counter_open(watch->limits->event_type, watch->limits->event_config);
        if (watch->counter < 0 && (flags & REQUEST_MUST_COUNT))
            return watch->counter;
    }
    return notes_at_exit(watch) ? trace_prepare(watch) : 0;
}

/* Make pipes and sockets, and the process. Returns 0 or -1 with *reply filled. */
static int launch(struct watch *watch, const struct frame *frame, const struct plan *plan,
                  bool borrow, struct report *report, struct wire_reply *reply)
{
    int sync[2] = {-1, -1}, notify[2] = {-1, -1}, ends[2] = {-1, -1};
    int fds[FRAME_FDS_MAX]; /* its own, for it moves them */
    int error = capture_open(&watch->capture, frame, ends);
    if (error == 0 && meets_keeper(plan) &&
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sync) < 0)
        error = -errno;
    if (error == 0 && watch->supervisor)
        error = supervise_open(watch->supervisor, plan, watch->box->context.host_proc);
    watch->box->children = watch->supervisor ? watch->supervisor->children : -1;
    if (error == 0 && (frame->request.flags & REQUEST_NOTIFY_EXEC) &&
        pipe2(notify, O_CLOEXEC) < 0)
        error = -errno;
    if (error == 0 && watch->rules && !(watch->heard && borrow))
        error = -EOPNOTSUPP; /* nobody would be asked */
    enum location location = LOCATION_PIPE;
    if (error == 0) {
        location = LOCATION_WATCH;
        error = observe(watch, frame);
    }
    if (error < 0)
        reply_failure(reply, location, -error);
    else {
        memcpy(fds, frame->fds, frame->fd_count * sizeof *fds);
        struct birth birth = {
            .plan = plan,
            .borrows = borrow,
            .context = {.fds = fds,
                        .fd_count = frame->fd_count,
                        .report = report,
                        .pipes = {ends[0], ends[1]},
                        .sync = sync[1],
                        .sync_peer = sync[0],
                        .notify = notify[1],
                        .ruleset = -1,
                        .host_proc = watch->box->context.host_proc,
                        .heard = watch->heard},
        };
        watch->traced = steps_have(plan, OP_ptrace_me);
        watch->started_ns = clock_ns(CLOCK_MONOTONIC);
        watch->program = watch->rules ? start_ruled(watch, &birth)
                                      : start_process(&birth, watch->box, &watch->pidfd);
        if (watch->supervisor)
            watch->supervisor->program = watch->program;
        watch->born_ns = clock_ns(CLOCK_MONOTONIC) - watch->started_ns;
        if (watch->program < 0)
            reply_failure(reply, LOCATION_CLONE, error = (int)-watch->program);
    }
    watch->sync = sync[0];
    watch->notify = notify[0];
    close_fd(&sync[1]);
    close_fd(&notify[1]);
    if (watch->heard && !borrow) /* it may not have come to them yet */
        memcpy(watch->ends, ends, sizeof ends);
    else {
        close_fd(&ends[0]);
        close_fd(&ends[1]);
    }
    return error ? -1 : 0;
}

static void fill_figures(struct wire_reply *reply, const struct watch *watch,
                         const struct report *report)
{
    const struct rusage *usage = &watch->usage;
    reply->status = watch->status;
    reply->cause = (int)watch->cause;
    reply->pid = watch->program;
    int64_t exec_ns = report->exec_ns ? report->exec_ns - watch->box->places.clock_shift_ns
                                      : watch->ended_ns; /* cancelled before */
    reply->setup_ns = exec_ns - watch->started_ns;
    reply->wall_ns = watch->ended_ns - exec_ns;
    reply->setup_cpu_ns =
        report->cpu_at_enter_ns ? report->cpu_at_exec_ns - report->cpu_at_enter_ns : 0;
    reply->user_ns = timeval_ns(usage->ru_utime) + atomic_load(&report->orphans_user_ns);
    reply->system_ns = timeval_ns(usage->ru_stime) + atomic_load(&report->orphans_system_ns);
    /* The kernel splits precise run time into the two by ticks: take ours off either. */
    int64_t ours = report->cpu_at_exec_ns;
    int64_t from_system = ours < reply->system_ns ? ours : reply->system_ns;
    reply->system_ns -= from_system;
    reply->user_ns -= ours - from_system < reply->user_ns ? ours - from_system : reply->user_ns;
    int64_t unseen = watch->follow ? watch->cpu_used_ns - reply->user_ns - reply->system_ns : 0;
    if (unseen > 0)
        reply->user_ns += unseen; /* of processes that nobody waited for */
    reply->memory_bytes = watch->memory_peak;
    reply->max_rss_bytes = (int64_t)usage->ru_maxrss * 1024;
    reply->page_faults_major = usage->ru_majflt;
    reply->page_faults_minor = usage->ru_minflt;
    reply->switches_voluntary = usage->ru_nvcsw;
    reply->switches_involuntary = usage->ru_nivcsw;
    reply->events = watch->counter < 0 ? -1 : counter_read(watch->counter);
    for (int i = 0; i < 2; i++)
        reply->stream_bytes[i] = watch->capture.stream[i].seen;
    reply->violation = watch->violation;
    reply->violation.heard = watch->listener > 0 && !listener_misses(watch->heard);
}

/* What the end of the program means: its own end, or that of its set-up. */
static void conclude(struct wire_reply *reply, const struct watch *watch,
                     const struct frame *frame, const struct plan *plan,
                     const struct report *report)
{
    int state = atomic_load(&report->state);
    if (watch->aborted)
        reply->kind = REPLY_ABORTED;
    else if (state == REPORT_FAILED && watch->cause == CAUSE_NONE) {
        box_report(reply, report);
        reply->detail = explain_failure(plan, report);
    } else if (watch->error < 0)
        reply_failure(reply, watch->error_location, -watch->error);
    else if (state == REPORT_SETUP && watch->cause == CAUSE_NONE)
        reply_failure(reply, LOCATION_CLONE, EPIPE); /* killed before it could say anything */
    else {
        fill_figures(reply, watch, report);
        if (watch->cause == CAUSE_NONE)
            reply->detail = explain_death(plan, frame->fds, watch->status);
    }
}

/* Was it killed, and not by us? Perhaps by itself; or init was, and the kernel killed all. */
static bool killed_by_another(const struct watch *watch)
{
    return watch->cause == CAUSE_NONE && !watch->aborted && WIFSIGNALED(watch->status) &&
           WTERMSIG(watch->status) == SIGKILL;
}

/*
 * End what the program left behind. init is asked where something may be left, and
 * where it may be dead: it closes its socket before the kernel kills the others.
 */
static void finish(struct watch *watch, struct box *box)
{
    bool ask = box->kills_asked > 0 || killed_by_another(watch) || !watch_tree_empty(watch);
    int error = ask ? box_empty(box) : 0;
    if (error < 0)
        watch_fail(watch, LOCATION_INIT, error);
    for (int i = 0; i < 2; i++) {
        error = capture_finish(&watch->capture.stream[i]);
        if (error < 0)
            watch_fail(watch, LOCATION_PIPE, error);
    }
    watch_output(watch);
    if (watch->ledger >= 0 && (error = ledger_write(watch->ledger)) < 0)
        watch_fail(watch, LOCATION_WATCH, error);
}

/* Was it killed by the timer that we set while it borrowed our memory? */
static bool overdue(const struct watch *watch)
{
    return watch->born_ns >= BORROW_LIMIT_NS - MS_NS && killed_by_another(watch);
}

/* Where the filter does not tell, it may have. */
static bool may_have_opened_sockets(const struct watch *watch)
{
    const bool told = watch->heard && watch->heard->sockets && watch->listener > 0;
    return !told || watch->opens_sockets;
}

/* One try. Returns as run_program does; *borrow becomes false if that took too long. */
static int run_once(struct box *box, const struct frame *frame, const struct plan *plan,
                    int control, const struct heard *heard, bool *borrow, struct report *report,
                    struct wire_reply *reply)
{
    static struct supervisor supervisor; /* large */
    struct watch watch;
    int gone = 0;
    *reply = reply_make(REPLY_EXITED, frame->request.run_id);
    memset(report, 0, sizeof *report);
    run_release(box); /* of a try before this */
    int error = kept_begin(&box->kept, &box->readings);
    if (error < 0) {
        reply_failure(reply, LOCATION_CGROUP, -error);
        return 0;
    }
    watch_init(&watch, box, frame, control, report);
    if (watch.cpu_base_ns < 0) { /* taken for 0, all earlier runs' time would be this one's */
        reply_failure(reply, LOCATION_CGROUP, EIO);
        return 0;
    }
    watch.heard = heard;
    if (rules_by_notice(plan)) {
        watch.rules = &supervisor.rules;
        rules_init(watch.rules, plan, -1);
        hear_nothing_asked();
    } else if (rules_present(plan))
        watch.supervisor = &supervisor;
    ledger_reset();
    if (launch(&watch, frame, plan, *borrow, report, reply) == 0) {
        gone = watch_program(&watch);
        finish(&watch, box);
        error = kept_end(&box->kept, &box->readings);
        if (error < 0) /* WATCH and not CGROUP, for the program has run: it is not run again */
            watch_fail(&watch, LOCATION_WATCH, error);
        conclude(reply, &watch, frame, plan, report);
        if (may_have_opened_sockets(&watch))
            box->places.net.used = true;
        *borrow = *borrow && !overdue(&watch);
    }
    watch_close(&watch);
    return gone;
}

void run_release(struct box *box)
{
    if (box->heard)
        listener_release(box->listener);
    box->heard = false;
}

/*
 * A program that was just written may be open for writing still, in a child that
 * another thread of the grader has forked and that has yet to exec: execve(2),
 * ETXTBSY. That passes. Not tried again in the child, whose filter may forbid to sleep,
 * nor where a callback was called.
 */
static bool busy(const struct wire_reply *reply, const struct plan *plan)
{
    return reply->kind == REPLY_FAILED && reply->location == LOCATION_EXECVE &&
           reply->error == ETXTBSY && !meets_grader(plan);
}

/* Change in the sandbox what the limits of this run ask for. Returns 0 or -1. */
static int make_ready(struct box *box, const struct plan *plan, struct report *report,
                      struct wire_reply *reply)
{
    memset(report, 0, sizeof *report);
    if (steps_run(plan, PHASE_READY, &box->context) == 0)
        return 0;
    box_report(reply, report);
    return -1;
}

/* Note what is full, before it is put back. */
static void say_full(const struct plan *plan, struct wire_reply *reply)
{
    int full = places_full(plan);
    if (full < 0)
        reply_failure(reply, LOCATION_WATCH, -full);
    else
        reply->full = full;
}

/*
 * A plan with a callback may not borrow: we have to answer before its exec. One that
 * hangs is started once more, as a copy, so that its limits and a cancel reach it.
 */
int run_program(struct box *box, struct frame *frame, int control, struct report *report,
                struct wire_reply *reply)
{
    const struct timespec pause = timespec_of(MS_NS);
    const struct plan *plan = &box->recent.plan;
    *reply = reply_make(REPLY_REFUSED, frame->request.run_id);
    if (kept_lend(&box->kept, frame) < 0)
        return 0;
    int error = plan_recall(&box->recent, frame->plan, frame->request.plan_bytes,
                            frame->fd_count, &reply->step);
    if (error < 0) {
        box_refuse(reply, error);
        return 0;
    }
    int gone = 0;
    bool valid = watch_valid(&frame->request.watch, frame->fd_count);
    bool ready = valid && make_ready(box, plan, report, reply) == 0;
    const struct heard *heard = filter_to_hear(plan, frame, box);
    bool borrow = may_borrow(plan, box, heard);
    for (int tries = 0; ready && gone == 0; tries++) {
        bool borrowed = borrow;
        gone = run_once(box, frame, plan, control, heard, &borrow, report, reply);
        if (borrowed && !borrow)
            continue;
        if (!busy(reply, plan) || tries >= BUSY_TRIES)
            break;
        (void)nanosleep(&pause, NULL);
    }
    if (reply->kind == REPLY_EXITED && frame->request.flags & REQUEST_SAY_FULL)
        say_full(plan, reply);
    return gone;
}
