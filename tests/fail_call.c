/*
 * fail_call WHO CALL NTH ERRNO RECORD PROGRAM: run PROGRAM, the helper, and let one system call
 * of one of its processes fail.
 *
 * WHO     0: the helper itself; 1, 2, …: its first child, its second, …, up to their exec
 * CALL    number of the system call; -1: none fails
 * NTH     which of its calls of that number, from 1
 * ERRNO   with which it fails; negative: it is made all the same, as close(2) is that fails
 * RECORD  file that has, in the end, the number of each call of that process, one a line; the
 *         last is the one that failed, if it came so far, and "failed" follows
 *
 * A filter counts nothing, and holds for all processes. So a process that is nobody's child
 * traces the one. It lets go when the call has failed.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CONTROL_FD = 3 };

struct job {
    int who;
    long call;
    int nth, error;
    pid_t helper, target;
    int births, seen;
    bool failing; /* the call has begun that is to fail */
    FILE *record;
};

static void die(const char *what)
{
    perror(what);
    exit(2);
}

static void skip_call(pid_t pid)
{
#if defined(__x86_64__)
    ptrace(PTRACE_POKEUSER, pid, offsetof(struct user_regs_struct, orig_rax), -1L);
#elif defined(__aarch64__)
    int none = -1;
    struct iovec iov = {&none, sizeof none};
    ptrace(PTRACE_SETREGSET, pid, 0x404 /* NT_ARM_SYSTEM_CALL */, &iov);
#endif
}

static void set_result(pid_t pid, long result)
{
    struct user_regs_struct regs;
    struct iovec iov = {&regs, sizeof regs};
    ptrace(PTRACE_GETREGSET, pid, NT_PRSTATUS, &iov);
#if defined(__x86_64__)
    regs.rax = (unsigned long)result;
#elif defined(__aarch64__)
    regs.regs[0] = (unsigned long)result;
#endif
    ptrace(PTRACE_SETREGSET, pid, NT_PRSTATUS, &iov);
}

/* A call begins or ends. Returns whether we are done with the process. */
static bool on_call(struct job *job)
{
    struct __ptrace_syscall_info info;
    if (ptrace(PTRACE_GET_SYSCALL_INFO, job->target, sizeof info, &info) <= 0)
        return false;
    if (info.op == PTRACE_SYSCALL_INFO_ENTRY) {
        fprintf(job->record, "%ld\n", (long)info.entry.nr);
        job->failing = (long)info.entry.nr == job->call && ++job->seen == job->nth;
        if (job->failing && job->error > 0)
            skip_call(job->target);
    } else if (job->failing) {
        set_result(job->target, -abs(job->error));
        fprintf(job->record, "failed\n");
        return true;
    }
    return false;
}

/* Let a process that has stopped go on, or go. */
static void on_stop(struct job *job, pid_t pid, int status)
{
    int event = status >> 16, number = WSTOPSIG(status);
    bool done = false;
    if (pid != job->helper && pid != job->target) {
        done = ++job->births != job->who; /* they are born one after the other */
        if (!done)
            job->target = pid;
    } else if (pid == job->target && number == (SIGTRAP | 0x80))
        done = on_call(job);
    else if (event == PTRACE_EVENT_EXEC) {
        done = pid == job->target;
        if (pid == job->helper && job->who == 0) {
            job->target = pid;
            done = false;
        }
    }
    if (event == PTRACE_EVENT_STOP && number != SIGTRAP) {
        ptrace(PTRACE_LISTEN, pid, NULL, NULL); /* stopped with its group */
        return;
    }
    if (pid == job->helper && job->who > 0 && job->births >= job->who)
        done = true;
    bool signalled = event == 0 && number != (SIGTRAP | 0x80);
    ptrace(done                 ? PTRACE_DETACH
           : pid == job->target ? PTRACE_SYSCALL
                                : PTRACE_CONT,
           pid, NULL, (long)(signalled ? number : 0));
}

static void trace(struct job *job)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, __WALL)) > 0)
        if (WIFSTOPPED(status))
            on_stop(job, pid, status);
}

/* In a grandchild, which is no child of the helper. */
static void begin(struct job *job, const char *path, int told)
{
    char part[4096];
    long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEEXEC;
    if (job->who > 0)
        options |= PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE;
    close(CONTROL_FD);
    snprintf(part, sizeof part, "%s.part", path);
    job->record = fopen(part, "w");
    if (!job->record || ptrace(PTRACE_SEIZE, job->helper, NULL, options) < 0)
        die(path);
    if (write(told, "", 1) != 1)
        die("pipe");
    close(told);
    trace(job);
    if (fclose(job->record) != 0 || rename(part, path) < 0)
        die(path);
}

int main(int argc, char **argv)
{
    if (argc != 7) {
        fprintf(stderr, "usage: fail_call WHO CALL NTH ERRNO RECORD PROGRAM\n");
        return 2;
    }
    struct job job = {.who = atoi(argv[1]),
                      .call = atol(argv[2]),
                      .nth = atoi(argv[3]),
                      .error = atoi(argv[4]),
                      .helper = getpid()};
    int told[2];
    char byte;
    if (pipe(told) < 0)
        die("pipe");
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0); /* Yama: not our parent */
    pid_t child = fork();
    if (child == 0) {
        if (fork() == 0)
            begin(&job, argv[5], told[1]);
        _exit(0);
    }
    close(told[1]);
    waitpid(child, NULL, 0);
    if (read(told[0], &byte, 1) != 1)
        return 2;
    close(told[0]);
    execl(argv[6], "keeper", (char *)NULL);
    return 2;
}
