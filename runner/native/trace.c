/*
 * The keeper as the program's tracer, for one thing: to read its /proc when it exits, while its
 * memory is still there (PTRACE_EVENT_EXIT). Only where that was asked for.
 *
 * All its threads are traced, since the memory goes with the last one, and since an exec by
 * another thread ends the first. Its child processes are not. A thread that is traced stays a
 * zombie until we have waited for it, and its process with it.
 */
#define _GNU_SOURCE
#include "trace.h"

#include "notes.h"
#include "stops.h"
#include "sys.h"

#include <sys/ptrace.h>
#include <sys/wait.h>

enum { READING_SHARE = 10 }; /* reading takes at most a tenth of the time */

/* Tracees, and children that are not told of by SIGCHLD: so not init. */
#define OUR_TRACEES ((int)__WCLONE | WNOHANG)

int trace_prepare(struct watch *watch)
{
    watch->stops = stops_open();
    return watch->stops < 0 ? watch->stops : 0;
}

/* All that we ask of a thread fails with ESRCH if it was killed meanwhile, and goes on. */
static void release(pid_t thread)
{
    (void)ptrace(PTRACE_DETACH, thread, NULL, NULL);
}

/*
 * Processes that are born without SIGCHLD are traced until their first stop, at which we let
 * them go. Of a program that ends before that, some are left; init could not reap them.
 */
static void release_all(void)
{
    const struct timespec pause = timespec_of(MS_NS / 10);
    const int64_t end = clock_ns(CLOCK_MONOTONIC) + NS_PER_S;
    siginfo_t info;
    do {
        info.si_pid = 0;
        if (waitid(P_ALL, 0, &info, WSTOPPED | WEXITED | OUR_TRACEES) < 0)
            return; /* ECHILD: there are none */
        if (info.si_pid == 0)
            (void)nanosleep(&pause, NULL);
        else if (info.si_code == CLD_TRAPPED)
            release(info.si_pid);
    } while (clock_ns(CLOCK_MONOTONIC) < end);
}

void trace_end(struct watch *watch)
{
    if (watch->stops < 0)
        return;
    release_all();
    stops_close(&watch->stops);
}

int trace_seize(const struct watch *watch)
{
    return stops_seize(watch->program, watch->sync, PTRACE_O_TRACEEXIT | PTRACE_O_TRACECLONE);
}

/* CLONE_THREAD or not: PTRACE_O_TRACECLONE is for all that is born without SIGCHLD. */
static bool is_thread(const struct watch *watch, pid_t thread)
{
    return syscall(SYS_tgkill, watch->program, thread, 0) == 0;
}

/*
 * The last that is read holds. While others have the memory too, it can be read at their exit:
 * until then not all the time, for threads end faster than their memory is listed.
 */
static bool is_to_be_read(const struct watch *watch, bool first, int64_t now)
{
    if (first || !watch->first_ended)
        return first;
    return now - watch->read_ns > watch->reading_ns * READING_SHARE || !notes_others(watch);
}

static void on_exit(struct watch *watch, pid_t thread)
{
    int64_t start = clock_ns(CLOCK_MONOTONIC);
    bool first = thread == watch->program;
    int error = 0;
    if (is_to_be_read(watch, first, start)) {
        error = notes_take_at_exit(watch, !first);
        watch->read_ns = clock_ns(CLOCK_MONOTONIC);
        watch->reading_ns = watch->read_ns - start;
    }
    watch->first_ended = watch->first_ended || first;
    if (error < 0)
        watch_fail(watch, LOCATION_WATCH, error);
}

/* `status`: the signal, and above it the event. */
static void on_stop(struct watch *watch, pid_t thread, int status)
{
    const int event = status >> 8;
    if (event == PTRACE_EVENT_EXIT)
        on_exit(watch, thread);
    if (event == PTRACE_EVENT_STOP && thread != watch->program && !is_thread(watch, thread))
        release(thread);
    else
        (void)stops_resume(thread, status);
}

/*
 * The next of what we trace that has stopped or ended: peeked at, since the end of the program
 * itself is for others to see. A tracee's stop is told whether or not WSTOPPED is given.
 */
static bool peek(siginfo_t *info)
{
    info->si_pid = 0;
    return waitid(P_ALL, 0, info, WSTOPPED | WEXITED | WNOWAIT | OUR_TRACEES) == 0 &&
           info->si_pid > 0;
}

void trace_events(struct watch *watch)
{
    const int64_t end = clock_ns(CLOCK_MONOTONIC) + STOPS_AT_A_TIME_NS;
    siginfo_t info;
    stops_take(watch->stops);
    while (peek(&info)) {
        if (info.si_code == CLD_TRAPPED) {
            pid_t thread = info.si_pid;
            info.si_pid = 0;
            if (waitid(P_PID, (id_t)thread, &info, WSTOPPED | WNOHANG | __WALL) == 0 &&
                info.si_pid && info.si_code == CLD_TRAPPED)
                on_stop(watch, thread, info.si_status);
        } else if (info.si_pid == watch->program)
            return;
        else
            (void)wait4(info.si_pid, NULL, __WALL | WNOHANG, NULL);
        if (clock_ns(CLOCK_MONOTONIC) > end) {
            stops_return();
            return;
        }
    }
}
