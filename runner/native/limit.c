/*
 * The limits of a running program, and when to look again. There is no tick: CPU
 * time cannot grow faster than the number of CPUs, so the next look is due at
 * (limit - used) / cpus; nor can memory that is followed, beyond what each CPU can touch.
 */
#define _GNU_SOURCE
#include "limit.h"

#include "follow.h"
#include "sys.h"

#include <stdlib.h>
#include <string.h>

enum {
    LOOK_MIN_NS = 500 * 1000, /* never look more often than this */
    FOLLOW_NS = 5 * 1000 * 1000,
    FOLLOW_SHARE = 10, /* following a large tree takes at most a tenth of a CPU */
    CPU_NOISE_NS = 200 * 1000,
    TOUCH_BYTES_PER_NS = 4, /* no CPU has its pages filled with zeros faster than this */
};

#define SETUP_LIMIT_NS (10 * NS_PER_S)

int64_t limit_read_cpu(int fd, int format)
{
    char text[64];
    ssize_t got = pread(fd, text, sizeof text - 1, 0);
    if (got <= 0)
        return -1;
    text[got] = 0;
    if (format == CPU_FORMAT_NS)
        return strtoll(text, NULL, 10);
    const char *key = "usage_usec ";
    return strncmp(text, key, strlen(key)) ? -1 : strtoll(text + strlen(key), NULL, 10) * 1000;
}

static int follow(struct watch *watch, bool exact, struct tree_usage *tree)
{
    return follow_tree(watch->box->proc, watch->program, watch->report, exact, tree);
}

/*
 * Time that has vanished from the tree was of processes whose parent ignores
 * SIGCHLD. A process that changes from "live" to "waited for" while we read looks
 * the same, once: so look twice.
 */
static int measure_tree(struct watch *watch)
{
    struct tree_usage tree, exact;
    int error = follow(watch, false, &tree);
    if (error == 0 && tree.cpu_ns < watch->tree_ns)
        error = follow(watch, false, &tree);
    if (error < 0)
        return error;
    if (tree.cpu_ns < watch->tree_ns)
        watch->lost_ns += watch->tree_ns - tree.cpu_ns;
    watch->tree_ns = tree.cpu_ns;
    watch->cpu_used_ns = tree.cpu_ns + watch->lost_ns - watch->report->cpu_at_exec_ns;
    int64_t limit = watch->limits->memory_bytes;
    if (limit && tree.memory_bytes > limit && follow(watch, true, &exact) == 0)
        tree.memory_bytes = exact.memory_bytes;
    watch->memory_now = tree.memory_bytes;
    if (tree.memory_bytes > watch->memory_peak)
        watch->memory_peak = tree.memory_bytes;
    return 0;
}

/* Look at what the tree has used. Returns 0 or -errno. */
static int measure(struct watch *watch)
{
    const struct report *report = watch->report;
    if (watch->cpu_fd < 0)
        return measure_tree(watch);
    int64_t used = limit_read_cpu(watch->cpu_fd, watch->limits->cpu_format);
    if (used < 0)
        return -EIO; /* the group is gone */
    int64_t ours =
        report->cpu_at_exec_ns ? report->cpu_at_exec_ns - report->cpu_at_enter_ns : 0;
    watch->cpu_used_ns = used - watch->cpu_base_ns - ours;
    return 0;
}

static void check_idle(struct watch *watch, int64_t now)
{
    if (watch->active_ns == 0 || watch->cpu_used_ns - watch->active_cpu_ns > CPU_NOISE_NS) {
        watch->active_ns = now;
        watch->active_cpu_ns = watch->cpu_used_ns;
    } else if (watch->limits->idle_ns && now - watch->active_ns >= watch->limits->idle_ns)
        watch_end(watch, CAUSE_IDLE_TIME);
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* When is the tree to be looked at again? After the last look, which took `took`. */
static int64_t next_look(const struct watch *watch, int64_t now, int64_t took)
{
    const struct wire_watch *limits = watch->limits;
    int64_t next = INT64_MAX;
    if (limits->cpu_ns)
        next = now + (limits->cpu_ns - watch->cpu_used_ns) / limits->cpus;
    if (limits->idle_ns)
        next = earlier(next, now + limits->idle_ns / 8);
    if (watch->follow && (limits->memory_bytes || limits->cpu_ns))
        next = earlier(next, now + FOLLOW_NS);
    if (watch->follow && limits->memory_bytes)
        next = earlier(next, now + (limits->memory_bytes - watch->memory_now) /
                                       (limits->cpus * TOUCH_BYTES_PER_NS));
    int64_t least = took * FOLLOW_SHARE;
    least = now + (watch->follow && least > LOOK_MIN_NS ? least : LOOK_MIN_NS);
    return next < least ? least : next;
}

int64_t limit_check(struct watch *watch)
{
    const struct wire_watch *limits = watch->limits;
    int64_t now = clock_ns(CLOCK_MONOTONIC), next = INT64_MAX;
    bool exec = atomic_load(&watch->report->state) == REPORT_EXEC;
    if (!exec && !watch->synchronising) {
        next = watch->started_ns + SETUP_LIMIT_NS;
        if (now >= next)
            watch_fail(watch, LOCATION_WATCH, -ETIMEDOUT); /* a frozen cgroup, a dead server */
    }
    if (limits->wall_ns) {
        /* The program's clock may be ahead of ours, or behind: its time namespace. */
        int64_t began = watch->report->exec_ns - watch->box->places.clock_shift_ns;
        int64_t end = (exec ? began : now) + limits->wall_ns;
        if (now >= end)
            watch_end(watch, CAUSE_WALL_TIME);
        next = earlier(next, end);
    }
    if (limits->cpu_ns || limits->idle_ns || (watch->follow && limits->memory_bytes)) {
        int error = exec ? measure(watch) : 0;
        if (error < 0)
            watch_fail(watch, LOCATION_WATCH, error);
        if (limits->cpu_ns && watch->cpu_used_ns >= limits->cpu_ns)
            watch_end(watch, CAUSE_CPU_TIME);
        if (limits->memory_bytes && watch->memory_peak > limits->memory_bytes)
            watch_end(watch, CAUSE_MEMORY);
        if (exec)
            check_idle(watch, now);
        int64_t after = clock_ns(CLOCK_MONOTONIC);
        next = earlier(next, next_look(watch, after, after - now));
    }
    return next;
}
