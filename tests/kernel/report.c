/*
 * report: a program that says what it was given. One line for each thing that a
 * process has, by system calls alone, so that it needs no file but itself; what
 * only /proc tells comes last, where there is one.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static void show_ids(void)
{
    uid_t uid[3];
    gid_t gid[3], groups[64];
    getresuid(&uid[0], &uid[1], &uid[2]);
    getresgid(&gid[0], &gid[1], &gid[2]);
    printf("uid %u %u %u\ngid %u %u %u\ngroups", uid[0], uid[1], uid[2], gid[0], gid[1],
           gid[2]);
    int count = getgroups(64, groups);
    for (int i = 0; i < count; i++)
        printf(" %u", groups[i]);
    printf("\n");
}

static void show_capabilities(void)
{
    struct {
        uint32_t version;
        int pid;
    } header = {0x20080522, 0};
    struct {
        uint32_t effective, permitted, inheritable;
    } data[2] = {{0}};
    syscall(SYS_capget, &header, data);
    printf("effective %llx\n", data[0].effective | (unsigned long long)data[1].effective << 32);
    printf("permitted %llx\n", data[0].permitted | (unsigned long long)data[1].permitted << 32);
    printf("inheritable %llx\n",
           data[0].inheritable | (unsigned long long)data[1].inheritable << 32);
    unsigned long long bounding = 0, ambient = 0;
    for (int i = 0; i < 64; i++) {
        if (prctl(PR_CAPBSET_READ, i, 0, 0, 0) == 1)
            bounding |= 1ull << i;
        if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, i, 0, 0) == 1)
            ambient |= 1ull << i;
    }
    printf("bounding %llx\nambient %llx\n", bounding, ambient);
    printf("securebits %x\n", (unsigned)prctl(PR_GET_SECUREBITS, 0, 0, 0, 0));
    printf("no_new_privs %d\n", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    printf("seccomp %d\n", prctl(PR_GET_SECCOMP, 0, 0, 0, 0));
}

static void show_signals(void)
{
    uint64_t blocked = 0, ignored = 0, caught = 0;
    syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &blocked, sizeof blocked);
    for (int number = 1; number <= 64; number++) {
        struct {
            void (*handler)(int);
            unsigned long flags;
            void *restorer;
            uint64_t mask;
        } old;
        if (syscall(SYS_rt_sigaction, number, NULL, &old, sizeof old.mask) < 0)
            continue;
        if (old.handler == SIG_IGN)
            ignored |= 1ull << (number - 1);
        else if (old.handler != SIG_DFL)
            caught |= 1ull << (number - 1);
    }
    printf("blocked %llx\nignored %llx\ncaught %llx\n", (unsigned long long)blocked,
           (unsigned long long)ignored, (unsigned long long)caught);
    int death = 0;
    prctl(PR_GET_PDEATHSIG, &death);
    printf("parent_death %d\n", death);
}

static void show_limits(void)
{
    for (int resource = 0; resource < 16; resource++) {
        struct rlimit limit;
        getrlimit(resource, &limit);
        printf("rlimit%d %lld %lld\n", resource, (long long)limit.rlim_cur,
               (long long)limit.rlim_max);
    }
}

static void show_fds(void)
{
    for (int fd = 0; fd < 1024; fd++) {
        struct stat status;
        if (fstat(fd, &status) == 0)
            printf("fd%d %llu:%llu %d\n", fd, (unsigned long long)status.st_dev,
                   (unsigned long long)status.st_ino, fcntl(fd, F_GETFD));
    }
}

static void show_process(void)
{
    char directory[4096];
    struct utsname names;
    mode_t mask = umask(0);
    umask(mask);
    uname(&names);
    printf("umask %o\nnice %d\npersonality %x\n", mask, getpriority(PRIO_PROCESS, 0),
           (unsigned)personality(0xffffffff));
    printf("host_name %s\ndomain_name %s\n", names.nodename, names.domainname);
    printf("work_dir %s\n", getcwd(directory, sizeof directory));
    printf("leads_session %d\n", getsid(0) == getpid() && getpgrp() == getpid());
    printf("first %d\n", getpid() == 1);
    cpu_set_t cpus;
    sched_getaffinity(0, sizeof cpus, &cpus);
    printf("cpus");
    for (int i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &cpus))
            printf(" %d", i);
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    printf("\nmonotonic %lld\n", (long long)now.tv_sec);
    clock_gettime(CLOCK_BOOTTIME, &now);
    printf("boottime %lld\n", (long long)now.tv_sec);
}

static void show_file(const char *name, const char *path)
{
    char line[4096];
    FILE *file = fopen(path, "r");
    if (!file)
        return;
    while (fgets(line, sizeof line, file))
        printf("%s %s", name, line);
    fclose(file);
}

int main(int argc, char **argv)
{
    static char buffer[1 << 16];
    show_fds(); /* before a stream or a file opens one */
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    for (int i = 0; i < argc; i++)
        printf("arg%d %s\n", i, argv[i]);
    for (char **entry = environ; *entry; entry++)
        printf("env %s\n", *entry);
    show_ids();
    show_capabilities();
    show_signals();
    show_limits();
    show_process();
    static const char *const kinds[] = {"mnt",  "cgroup", "uts", "ipc",
                                        "user", "pid",    "net", "time"};
    for (int i = 0; i < 8; i++) {
        char path[64], text[128];
        snprintf(path, sizeof path, "/proc/self/ns/%s", kinds[i]);
        ssize_t size = readlink(path, text, sizeof text - 1);
        if (size > 0)
            printf("ns_%s %.*s\n", kinds[i], (int)size, text);
    }
    show_file("mount", "/proc/self/mountinfo");
    show_file("uid_map", "/proc/self/uid_map");
    show_file("gid_map", "/proc/self/gid_map");
    show_file("setgroups", "/proc/self/setgroups");
    show_file("oom_score_adj", "/proc/self/oom_score_adj");
    return fflush(stdout) == 0 ? 0 : 1;
}
