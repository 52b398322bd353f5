/* soak WHAT: one program of the soak, made to behave or to leave as much as it can. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, CHILDREN = 64 };

static int succeed(void)
{
    return 0;
}

static int fail(void)
{
    return 3;
}

static int echo(void)
{
    char buffer[PAGE];
    ssize_t got;
    while ((got = read(0, buffer, sizeof buffer)) > 0)
        if (write(1, buffer, (size_t)got) != got)
            return 1;
    return 0;
}

static int compute(void)
{
    volatile unsigned sum = 0;
    for (unsigned i = 0; i < 100000; i++)
        sum += i;
    return 0;
}

static int family(void)
{
    for (int i = 0; i < 3; i++)
        if (fork() == 0)
            _exit(0);
    while (wait(NULL) > 0)
        continue;
    return 0;
}

/* Children that live on, until no more can be. */
static int bomb(void)
{
    for (int i = 0; i < CHILDREN; i++) {
        pid_t child = fork();
        if (child == 0)
            for (;;)
                pause();
        if (child < 0)
            break;
    }
    return 0;
}

static int hog(void)
{
    for (;;) {
        char *block = malloc(1 << 20);
        if (!block)
            return 4;
        memset(block, 1, 1 << 20);
    }
}

static int spin(void)
{
    for (volatile bool on = true; on;)
        continue;
    return 0;
}

/* Bytes, files and directories in the places that can be written to. */
static int fill(void)
{
    char name[64], buffer[PAGE] = {0};
    for (int i = 0; i < 16; i++) {
        (void)snprintf(name, sizeof name, "/tmp/d%d", i);
        (void)mkdir(name, 0700);
        (void)snprintf(name, sizeof name, "/tmp/d%d/f", i);
        int fd = open(name, O_WRONLY | O_CREAT, 0600);
        for (int j = 0; j < 16 && fd >= 0; j++)
            (void)!write(fd, buffer, sizeof buffer);
        (void)snprintf(name, sizeof name, "/dev/shm/f%d", i);
        (void)open(name, O_WRONLY | O_CREAT, 0600);
    }
    return 0;
}

/* A grandchild in a session of its own, which ignores all that it can. */
static int orphan(void)
{
    int pipe_fds[2];
    char byte;
    if (pipe(pipe_fds) < 0)
        return 1;
    if (fork() == 0) {
        (void)setsid();
        if (fork() == 0) {
            for (int number = 1; number < 64; number++)
                (void)signal(number, SIG_IGN);
            (void)!write(pipe_fds[1], "", 1);
            for (;;)
                pause();
        }
        _exit(0);
    }
    return read(pipe_fds[0], &byte, 1) == 1 ? 0 : 1;
}

static int die(void)
{
    return raise(SIGSEGV);
}

static int leave_objects(void)
{
    int memory = shmget(IPC_PRIVATE, 1 << 20, 0600);
    char *at = memory < 0 ? NULL : shmat(memory, NULL, 0);
    if (!at || at == (char *)-1)
        return 1;
    memset(at, 1, 1 << 20);
    (void)semget(IPC_PRIVATE, 8, 0600);
    (void)msgget(IPC_PRIVATE, 0600);
    (void)syscall(SYS_mq_open, "soak", O_CREAT | O_RDWR, 0600, NULL);
    int fd = shm_open("/soak", O_CREAT | O_RDWR, 0600);
    return fd >= 0 && ftruncate(fd, PAGE) == 0 ? 0 : 1;
}

/* A call that every policy ends a program for, where there is one: of the x32 ABI. */
static int break_rules(void)
{
#ifdef __x86_64__
    (void)syscall(0x40000000 | SYS_getpid);
#endif
    return syscall(SYS_ptrace, 16, 1, NULL, NULL) < 0 ? 5 : 6;
}

static int flood(void)
{
    char buffer[PAGE] = {0};
    while (write(1, buffer, sizeof buffer) >= 0)
        continue;
    return 7;
}

static int sleep_on(void)
{
    while (pause() < 0)
        continue;
    return 0;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*main)(void);
    } all[] = {
        {"succeed", succeed},   {"fail", fail},     {"echo", echo},
        {"compute", compute},   {"family", family}, {"bomb", bomb},
        {"hog", hog},           {"spin", spin},     {"fill", fill},
        {"orphan", orphan},     {"die", die},       {"objects", leave_objects},
        {"rules", break_rules}, {"flood", flood},   {"sleep", sleep_on},
    };
    for (unsigned i = 0; argc == 2 && i < sizeof all / sizeof *all; i++)
        if (strcmp(argv[1], all[i].name) == 0)
            return all[i].main();
    return 2;
}
