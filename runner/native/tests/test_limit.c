/*
 * limit_check: what ends a program, and when it is to be looked at again. Its CPU time is
 * read from a file as cgroups have them; the clock is the real one, and the start of the
 * program is put into the past.
 */
#define _GNU_SOURCE
#include "limit.h"
#include "sys.h"

#include "tap.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>

#define SECOND NS_PER_S
#define LEAST_NS 500000ll /* no look comes sooner after another */

/* A program that runs for a second already, with two CPUs. */
struct running {
    struct box box;
    struct report report;
    struct wire_watch limits;
    struct watch watch;
};

static void start(struct running *running, struct wire_watch limits)
{
    memset(running, 0, sizeof *running);
    running->limits = limits;
    running->limits.cpus = 2;
    running->box.proc = -1;
    running->report.exec_ns = clock_ns(CLOCK_MONOTONIC) - SECOND;
    atomic_store(&running->report.state, REPORT_EXEC);
    running->watch = (struct watch){
        .box = &running->box,
        .report = &running->report,
        .limits = &running->limits,
        .started_ns = running->report.exec_ns,
        .cpu_fd = -1,
        .procs_fd = -1,
        .program = -1,
        .pidfd = -1,
        .memory_peak = -1,
    };
}

static void says(struct running *running, const char *text)
{
    if (running->watch.cpu_fd < 0)
        running->watch.cpu_fd = memfd_create("cpu", MFD_CLOEXEC);
    if (ftruncate(running->watch.cpu_fd, 0) < 0 ||
        pwrite(running->watch.cpu_fd, text, strlen(text), 0) != (ssize_t)strlen(text))
        bail_out("memfd");
}

static void used(struct running *running, int64_t cpu_ns)
{
    char text[32];
    (void)snprintf(text, sizeof text, "%" PRId64 "\n", cpu_ns);
    running->limits.cpu_format = CPU_FORMAT_NS;
    says(running, text);
}

/* Is the next look `wait` after this one? Both ends of the call are known. */
static bool next_in(struct running *running, int64_t wait)
{
    int64_t before = clock_ns(CLOCK_MONOTONIC);
    int64_t next = limit_check(&running->watch);
    return running->watch.cause == CAUSE_NONE && next >= before + wait &&
           next <= clock_ns(CLOCK_MONOTONIC) + wait;
}

/* The same of a tree that is followed, where a look that takes long puts off the next. */
static bool follows_in(struct running *running, int64_t wait)
{
    for (int i = 0; i < 50; i++)
        if (next_in(running, wait))
            return true;
    return false;
}

static enum cause cause_of(struct running *running)
{
    (void)limit_check(&running->watch);
    enum cause cause = running->watch.cause;
    close_fd(&running->watch.cpu_fd);
    return cause;
}

static void test_wall_time(void)
{
    struct running r;
    start(&r, (struct wire_watch){.wall_ns = 3 * SECOND});
    check(limit_check(&r.watch) == r.report.exec_ns + 3 * SECOND && r.watch.cause == CAUSE_NONE,
          "wall time alone is looked at when it ends");
    start(&r, (struct wire_watch){.wall_ns = SECOND});
    check(cause_of(&r) == CAUSE_WALL_TIME, "wall time that has passed ends it");
    start(&r, (struct wire_watch){.wall_ns = 3 * SECOND});
    r.report.exec_ns += 7 * SECOND;
    r.box.places.clock_shift_ns = 7 * SECOND;
    check(limit_check(&r.watch) == r.report.exec_ns - 4 * SECOND,
          "wall time is of our clock, whatever the program's time namespace says");
}

static void test_cpu_time(void)
{
    struct running r;
    start(&r, (struct wire_watch){.cpu_ns = 3 * SECOND});
    used(&r, SECOND);
    check(next_in(&r, SECOND), "two CPUs use the two seconds that are left in one");
    r.limits.cpus = 1;
    check(next_in(&r, 2 * SECOND), "one CPU in two");
    used(&r, 3 * SECOND - 1);
    check(next_in(&r, LEAST_NS),
          "just before the limit there is a look every half millisecond");
    used(&r, 3 * SECOND);
    check(cause_of(&r) == CAUSE_CPU_TIME, "CPU time of the limit ends it");
    start(&r, (struct wire_watch){.cpu_ns = 3 * SECOND, .wall_ns = 1500 * MS_NS});
    used(&r, 0);
    check(limit_check(&r.watch) == r.report.exec_ns + 1500 * MS_NS,
          "the earlier of two limits decides about the next look");
    close_fd(&r.watch.cpu_fd);
}

static void test_cpu_time_of_others(void)
{
    struct running r;
    start(&r, (struct wire_watch){.cpu_ns = SECOND});
    r.watch.cpu_base_ns = 5 * SECOND;
    r.report.cpu_at_enter_ns = 10 * MS_NS;
    r.report.cpu_at_exec_ns = 30 * MS_NS;
    used(&r, 6 * SECOND + 20 * MS_NS - 2);
    check(next_in(&r, LEAST_NS), "what the group used before, and our set-up, do not count");
    used(&r, 6 * SECOND + 20 * MS_NS);
    check(cause_of(&r) == CAUSE_CPU_TIME, "all after them does");
    start(&r, (struct wire_watch){.cpu_ns = SECOND, .cpu_format = CPU_FORMAT_STAT});
    says(&r, "usage_usec 600000\nuser_usec 1\nsystem_usec 2\n");
    check(next_in(&r, 200 * MS_NS), "cpu.stat is in microseconds");
    says(&r, "nr_periods 600000\n");
    (void)limit_check(&r.watch);
    check(r.watch.error == -EIO && r.watch.error_location == LOCATION_WATCH &&
              r.watch.cause == CAUSE_NONE,
          "a figure that cannot be read is our failure, not a verdict");
    close_fd(&r.watch.cpu_fd);
}

static void test_idle_time(void)
{
    struct running r;
    start(&r, (struct wire_watch){.idle_ns = 800 * MS_NS});
    used(&r, SECOND);
    check(next_in(&r, 100 * MS_NS), "an idle program is looked at eight times in its time");
    r.watch.active_ns -= 700 * MS_NS;
    used(&r, SECOND + 190 * 1000);
    check(next_in(&r, 100 * MS_NS), "it is not ended before its time");
    r.watch.active_ns -= 200 * MS_NS;
    used(&r, SECOND + 210 * 1000);
    check(next_in(&r, 100 * MS_NS), "0.2 ms of CPU time since then start it anew");
    r.watch.active_ns -= 800 * MS_NS;
    used(&r, SECOND + 400 * 1000);
    check(cause_of(&r) == CAUSE_IDLE_TIME, "less than that is none");
}

static void test_memory(void)
{
    struct running r;
    char path[] = "/tmp/run-sandboxed-test-XXXXXX";
    start(&r, (struct wire_watch){.memory_bytes = 32 << 20});
    if (!mkdtemp(path) || (r.box.proc = open(path, O_RDONLY | O_CLOEXEC)) < 0)
        bail_out("mkdtemp");
    r.watch.follow = true;
    r.watch.program = getpid(); /* for its clock alone: no process is to be seen */
    int64_t whole = (32ll << 20) / (2 * 4);
    check(follows_in(&r, whole), "two CPUs touch 32 MiB in 4 ms");
    r.limits.memory_bytes = 1ll << 40;
    check(follows_in(&r, 5 * MS_NS), "a tree is looked at every 5 ms");
    r.watch.program = -1; /* which would be killed */
    r.watch.memory_peak = r.limits.memory_bytes + 1;
    r.watch.cpu_fd = memfd_create("cpu", MFD_CLOEXEC);
    used(&r, 0);
    check(cause_of(&r) == CAUSE_MEMORY, "memory beyond the limit ends it");
    (void)rmdir(path);
    close_fd(&r.box.proc);
}

/* All are due: which is written down? */
static void test_order(void)
{
    struct running r;
    struct wire_watch all = {.wall_ns = SECOND, .cpu_ns = SECOND, .idle_ns = MS_NS};
    for (int i = 0; i < 4; i++) {
        static const enum cause causes[] = {CAUSE_WALL_TIME, CAUSE_CPU_TIME, CAUSE_MEMORY,
                                            CAUSE_IDLE_TIME};
        all.wall_ns = i < 1 ? SECOND : 0;
        all.cpu_ns = i < 2 ? SECOND : 0;
        all.memory_bytes = i < 3 ? 1 : 0;
        start(&r, all);
        r.watch.memory_peak = 2;
        r.watch.active_ns = 1;
        r.watch.active_cpu_ns = SECOND;
        used(&r, SECOND);
        check(cause_of(&r) == causes[i], "of all that are due number %d wins", i);
    }
    start(&r, all);
    r.watch.cause = CAUSE_CANCELLED;
    r.watch.active_ns = 1;
    used(&r, 0);
    check(cause_of(&r) == CAUSE_CANCELLED, "what was written down first stays");
}

static void test_setup(void)
{
    struct running r;
    start(&r, (struct wire_watch){.wall_ns = MS_NS, .cpu_ns = 1, .idle_ns = 1});
    atomic_store(&r.report.state, REPORT_SETUP);
    used(&r, SECOND);
    (void)limit_check(&r.watch);
    check(r.watch.cause == CAUSE_NONE && r.watch.error == 0,
          "before its exec a program has used nothing");
    start(&r, (struct wire_watch){0});
    atomic_store(&r.report.state, REPORT_SETUP);
    check(limit_check(&r.watch) == r.watch.started_ns + 10 * SECOND, "set-up has ten seconds");
    r.watch.started_ns -= 10 * SECOND;
    (void)limit_check(&r.watch);
    check(r.watch.error == -ETIMEDOUT && r.watch.cause == CAUSE_NONE,
          "set-up that takes longer is our failure");
    start(&r, (struct wire_watch){0});
    atomic_store(&r.report.state, REPORT_SETUP);
    r.watch.started_ns -= 20 * SECOND;
    r.watch.synchronising = true;
    check(limit_check(&r.watch) == INT64_MAX && r.watch.error == 0,
          "but not while the grader's callback runs");
}

int main(void)
{
    test_wall_time();
    test_cpu_time();
    test_cpu_time_of_others();
    test_idle_time();
    test_memory();
    test_order();
    test_setup();
    return finish();
}
