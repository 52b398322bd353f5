/*
 * Supervision by ptrace. The program's filter stops the calls that have rules (RET_TRACE), no
 * other; new processes and threads are traced from their birth, through each exec. Only these
 * stops, births, execs and signals come here: a call without a rule costs nothing.
 */
#define _GNU_SOURCE
#include "supervise.h"

#include "steps.h"
#include "stops.h"
#include "sys.h"

#include <elf.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>

#ifndef PTRACE_GET_SYSCALL_INFO
#define PTRACE_GET_SYSCALL_INFO 0x420e
#endif

#define OPTIONS                                                                               \
    (PTRACE_O_TRACESECCOMP | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | \
     PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL)

/* What a stop has with it: why the filter says so. Numbered as runner/supervision.py does. */
enum { STOP_BY_RULE, STOP_BY_POLICY };

/* struct ptrace_syscall_info as of a seccomp stop (Linux 5.3), which a libc may not have. */
struct seccomp_stop {
    uint8_t op; /* 3: PTRACE_SYSCALL_INFO_SECCOMP */
    uint8_t pad[3];
    uint32_t arch;
    uint64_t instruction_pointer, stack_pointer;
    uint64_t number, args[6];
    uint32_t data; /* of the newest filter that says so: it may be one of the program's own */
};

int supervise_open(struct supervisor *supervisor, const struct plan *plan, int proc)
{
    rules_init(&supervisor->rules, plan, proc);
    supervisor->children = -1;
    for (unsigned i = 0; i < plan->count; i++) {
        const struct step *step = &plan->steps[i];
        if (step->op == OP_seccomp &&
            !filter_take(&supervisor->filter, supervisor->code, step->data, step->length))
            return -EINVAL;
    }
    supervisor->children = stops_open();
    return supervisor->children < 0 ? supervisor->children : 0;
}

int supervise_seize(const struct supervisor *supervisor, int sync)
{
    return stops_seize(supervisor->program, sync, OPTIONS);
}

void supervise_close(struct supervisor *supervisor)
{
    stops_close(&supervisor->children);
}

/* Have the call not happen, and give this errno instead. Returns 0 or -errno. */
static int refuse(pid_t tid, int error)
{
#if defined __x86_64__
    struct user_regs_struct registers;
    if (ptrace(PTRACE_GETREGS, tid, NULL, &registers) < 0)
        return -errno;
    registers.orig_rax = (unsigned long long)-1;
    registers.rax = (uint64_t)-(int64_t)error;
    return ptrace(PTRACE_SETREGS, tid, NULL, &registers) < 0 ? -errno : 0;
#elif defined __aarch64__
    struct user_regs_struct registers;
    struct iovec all = {&registers, sizeof registers};
    int none = -1;
    struct iovec number = {&none, sizeof none};
    if (ptrace(PTRACE_GETREGSET, tid, NT_PRSTATUS, &all) < 0)
        return -errno;
    registers.regs[0] = (uint64_t)-(int64_t)error;
    if (ptrace(PTRACE_SETREGSET, tid, NT_PRSTATUS, &all) < 0 ||
        ptrace(PTRACE_SETREGSET, tid, NT_ARM_SYSTEM_CALL, &number) < 0)
        return -errno;
    return 0;
#else
#error "supervision needs the registers of this architecture"
#endif
}

/* ESRCH: it was killed while it had stopped, which its parent will hear. */
static int tolerate(int error)
{
    return error == -ESRCH ? 0 : error;
}

static int go_on(pid_t tid, int status)
{
    return tolerate(stops_resume(tid, status >> 8));
}

/* By our filter alone: where the program has added one that traces too, that is the newest. */
static struct decision decide(struct supervisor *supervisor, pid_t tid, const struct call *call)
{
    switch (filter_answer(&supervisor->filter, call)) {
    case ANSWER_TRACE | STOP_BY_RULE:
        return rules_decide(&supervisor->rules, tid, call);
    case ANSWER_TRACE | STOP_BY_POLICY:
        return (struct decision){.verdict = VERDICT_KILL};
    default: /* it stopped by its own alone, for a tracer that there is not */
        return (struct decision){.verdict = VERDICT_ERRNO, .error = ENOSYS};
    }
}

/* A call of the program's, before it happens. */
static int on_call(struct supervisor *supervisor, pid_t tid, int status, struct call *call,
                   struct decision *decision)
{
    struct seccomp_stop stop = {0};
    if (ptrace(PTRACE_GET_SYSCALL_INFO, tid, (void *)sizeof stop, &stop) < 0)
        return tolerate(-errno);
    *call = (struct call){.number = (int32_t)stop.number,
                          .arch = stop.arch,
                          .instruction = stop.instruction_pointer};
    memcpy(call->args, stop.args, sizeof call->args);
    *decision = decide(supervisor, tid, call);
    if (decision->verdict == VERDICT_KILL)
        return 1; /* it stays stopped, until it is killed */
    int error = decision->verdict == VERDICT_ERRNO ? refuse(tid, decision->error) : 0;
    return error < 0 ? tolerate(error) : go_on(tid, status);
}

int supervise(struct supervisor *supervisor, struct call *call, struct decision *decision)
{
    const int64_t end = clock_ns(CLOCK_MONOTONIC) + STOPS_AT_A_TIME_NS;
    stops_take(supervisor->children);
    do {
        siginfo_t info = {0};
        int status;
        if (waitid(P_ALL, 0, &info, WSTOPPED | WEXITED | WNOHANG | WNOWAIT | __WALL) < 0)
            return errno == EINTR ? 0 : -errno;
        if (info.si_pid == 0)
            return 0;
        bool ended = info.si_code != CLD_STOPPED && info.si_code != CLD_TRAPPED;
        if (ended && info.si_pid == supervisor->program)
            return 0; /* its end is seen by its pidfd, and the others' end comes then */
        /* Of a child of the program's we only take note: its parent waits for it after us. */
        if (wait4(info.si_pid, &status, WNOHANG | __WALL, NULL) <= 0 || ended)
            continue;
        int result = status >> 16 == PTRACE_EVENT_SECCOMP
                         ? on_call(supervisor, info.si_pid, status, call, decision)
                         : go_on(info.si_pid, status); /* a birth, an exec, a signal, a stop */
        if (result != 0)
            return result;
    } while (clock_ns(CLOCK_MONOTONIC) < end);
    stops_return();
    return 0;
}
