/*
 * The tree's CPU time and memory without a cgroup. CPU is the sum of: the
 * program's own clock (exact), what every other live process and its reaped
 * children used (/proc/PID/stat, in ticks), and what init has reaped. Memory is
 * the sum of the anonymous and shared-memory pages of each live process; where
 * that is beyond the limit, it is counted again with shared pages shared out. What
 * no process has mapped (memfds, pipes, sockets) is not seen.
 *
 * A child whose parent ignores SIGCHLD is reaped by the kernel and its time is
 * lost (wait(2)): that is why a cgroup is better, and why `enforced` says "proc".
 */
#define _GNU_SOURCE
#include "follow.h"

#include "sys.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TICK_NS = 10 * 1000 * 1000 }; /* USER_HZ is 100 on every architecture we build for */

/* The clock of another process's CPU time, all threads: see clock_getcpuclockid(3). */
static int64_t process_cpu_ns(pid_t pid)
{
    return clock_ns((clockid_t)((~(unsigned)pid << 3) | 2u));
}

static ssize_t read_file(int proc, const char *pid, const char *name, char *text, size_t size)
{
    char path[64];
    if (snprintf(path, sizeof path, "%s/%s", pid, name) >= (int)sizeof path)
        return -1;
    cleanup_fd int fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1; /* it has ended meanwhile */
    ssize_t got = read(fd, text, size - 1);
    text[got > 0 ? got : 0] = 0;
    return got;
}

/* Fields 14 to 17 of proc_pid_stat(5), after the name, which may hold anything but is last in
 * ). */
static int64_t stat_cpu_ns(const char *text, bool own)
{
    const char *at = strrchr(text, ')');
    unsigned long long user = 0, system = 0;
    long long children_user = 0, children_system = 0;
    if (!at ||
        sscanf(at + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %lld %lld",
               &user, &system, &children_user, &children_system) != 4)
        return 0;
    int64_t ticks = children_user + children_system;
    if (own)
        ticks += (int64_t)(user + system);
    return ticks * TICK_NS;
}

/* `name` begins with a newline: the process's own name, a line before, cannot hold one. */
static int64_t status_field_bytes(const char *text, const char *name)
{
    const char *at = strstr(text, name);
    return at ? strtoll(at + strlen(name), NULL, 10) * 1024 : 0;
}

static int64_t memory_in(const char *text, bool exact)
{
    return exact ? status_field_bytes(text, "\nPss_Anon:") +
                       status_field_bytes(text, "\nPss_Shmem:")
                 : status_field_bytes(text, "\nRssAnon:") +
                       status_field_bytes(text, "\nRssShmem:");
}

/* The memory of a process whose first thread has ended shows at the others only. */
static int64_t memory_of_threads(int proc, const char *pid, const char *file, bool exact)
{
    char path[64];
    _Alignas(struct linux_dirent64) char entries[1024];
    if (snprintf(path, sizeof path, "%s/task", pid) >= (int)sizeof path)
        return 0;
    cleanup_fd int tasks = openat(proc, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    long size = tasks < 0 ? 0 : syscall(SYS_getdents64, tasks, entries, sizeof entries);
    for (long at = 0; at < size;) {
        const struct linux_dirent64 *entry = (const void *)(entries + at);
        char text[4096];
        at += entry->length;
        if (entry->name[0] == '.' ||
            read_file(tasks, entry->name, file, text, sizeof text) <= 0)
            continue;
        int64_t bytes = memory_in(text, exact);
        if (bytes > 0)
            return bytes;
    }
    return 0;
}

static int64_t memory_of(int proc, const char *pid, bool exact)
{
    char text[4096];
    const char *file = exact ? "smaps_rollup" : "status";
    int64_t bytes = 0;
    if (read_file(proc, pid, file, text, sizeof text) > 0)
        bytes = memory_in(text, exact);
    return bytes ? bytes : memory_of_threads(proc, pid, file, exact);
}

static void add_process(int proc, const char *pid, bool is_program, bool exact,
                        struct tree_usage *usage)
{
    char text[1024];
    if (read_file(proc, pid, "stat", text, sizeof text) > 0)
        usage->cpu_ns += stat_cpu_ns(text, !is_program);
    int64_t bytes = memory_of(proc, pid, exact);
    if (exact && bytes == 0) /* not every kernel has it, nor lets us read it */
        bytes = memory_of(proc, pid, false);
    usage->memory_bytes += bytes;
    usage->processes++;
}

int follow_tree(int proc, pid_t program, const struct report *report, bool exact,
                struct tree_usage *usage)
{
    *usage = (struct tree_usage){.cpu_ns = process_cpu_ns(program)};
    usage->cpu_ns +=
        atomic_load(&report->orphans_user_ns) + atomic_load(&report->orphans_system_ns);
    cleanup_fd int directory =
        proc < 0 ? -1 : openat(proc, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0)
        return proc < 0 ? 0 : -errno;
    _Alignas(struct linux_dirent64) char entries[8192];
    long size;
    while ((size = syscall(SYS_getdents64, directory, entries, sizeof entries)) > 0) {
        for (long at = 0; at < size;) {
            const struct linux_dirent64 *entry = (const void *)(entries + at);
            at += entry->length;
            long pid = strtol(entry->name, NULL, 10);
            if (pid > 1) /* 1 is init, 0 no process */
                add_process(directory, entry->name, pid == report->pid_inside, exact, usage);
        }
    }
    return size < 0 ? -errno : 0;
}
