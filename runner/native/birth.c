/*
 * How a program's process is born: with the same number in its pid namespace for
 * each run, and its children with those that follow. Else the numbers would tell how
 * many processes the runs before have made, which these may choose: a message.
 *
 * clone3(2) gives a process a number (Linux 5.5), ns_last_pid the next ones (with
 * CONFIG_CHECKPOINT_RESTORE). Where either is missing, numbers go on.
 */
#define _GNU_SOURCE
#include "birth.h"

#include "sys.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>

#ifndef SYS_clone3
#define SYS_clone3 435
#endif

enum { FIRST_PID = 2 }; /* init is 1 */

/* struct clone_args of clone3(2), as of Linux 5.5. */
struct clone3_args {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal;
    uint64_t stack, stack_size, tls, set_tid, set_tid_size;
};

static _Alignas(16) char stack[64 * 1024];

/*
 * The system call, and in the child the function: it is on another stack, to which it could
 * not return. The kernel keeps all registers but the result's and those named.
 */
static long clone3_call(const struct clone3_args *args, int (*entry)(void *), void *argument)
{
#if defined(__x86_64__)
    long result;
    __asm__ volatile("syscall\n\t"
                     "test %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "xor %%ebp, %%ebp\n\t"
                     "mov %[argument], %%rdi\n\t"
                     "call *%[entry]\n\t"
                     "ud2\n"
                     "1:"
                     : "=a"(result)
                     : "a"((long)SYS_clone3), "D"(args),
                       "S"(sizeof *args), [entry] "r"(entry), [argument] "r"(argument)
                     : "rcx", "r11", "memory");
    return result;
#elif defined(__aarch64__)
    register long number __asm__("x8") = SYS_clone3;
    register long result __asm__("x0") = (long)args;
    register long size __asm__("x1") = sizeof *args;
    __asm__ volatile("svc #0\n\t"
                     "cbnz x0, 1f\n\t"
                     "mov x29, xzr\n\t"
                     "mov x0, %[argument]\n\t"
                     "blr %[entry]\n\t"
                     "brk #0\n"
                     "1:"
                     : "+r"(result)
                     : "r"(number), "r"(size), [entry] "r"(entry), [argument] "r"(argument)
                     : "memory");
    return result;
#else
    (void)args, (void)entry, (void)argument;
    return -ENOSYS;
#endif
}

static pid_t give_numbered(int (*entry)(void *), void *argument, unsigned long flags,
                           int *pidfd)
{
    const pid_t number = FIRST_PID;
    struct clone3_args args = {
        .flags = CLONE_PIDFD_FLAG | flags,
        .pidfd = (uintptr_t)pidfd,
        .exit_signal = SIGCHLD,
        .stack = (uintptr_t)stack,
        .stack_size = sizeof stack,
        .set_tid = (uintptr_t)&number,
        .set_tid_size = 1,
    };
    return (pid_t)clone3_call(&args, entry, argument);
}

/* Does the kernel, or a container's filter, know or allow no numbers? */
static bool refuses_numbers(pid_t result)
{
    switch (-result) {
    case ENOSYS:
    case E2BIG:
    case EINVAL:
    case EPERM:
    case EEXIST:
        return true;
    default:
        return false;
    }
}

pid_t birth_give(int (*entry)(void *), void *argument, unsigned long flags, bool numbered,
                 int *pidfd)
{
    *pidfd = -1;
    if (numbered) {
        pid_t pid = give_numbered(entry, argument, flags, pidfd);
        if (!refuses_numbers(pid))
            return pid;
    }
    return (pid_t)sys_result(clone(entry, stack + sizeof stack,
                                   (int)(CLONE_PIDFD_FLAG | flags) | SIGCHLD, argument, pidfd,
                                   NULL, NULL));
}

int birth_numbers(void)
{
    return open("/proc/sys/kernel/ns_last_pid", O_WRONLY | O_CLOEXEC);
}

void birth_count_anew(int numbers)
{
    const char last[] = {'0' + FIRST_PID};
    if (numbers >= 0)
        (void)pwrite(numbers, last, sizeof last, 0); /* refused: they go on */
}
