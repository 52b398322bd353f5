/*
 * A kill by a seccomp filter tells nobody which call it was: wait4 gives SIGSYS, the
 * kernel's log is root's. So in the filter that is installed the kills are
 * SECCOMP_RET_USER_NOTIF (Linux 5.0): the call waits, and whoever holds the listener
 * learns its number, architecture and arguments.
 *
 * That has to be the keeper, and no call may be needed to hand the listener over, for
 * the filter need allow none but the exec. So the program's process shares the
 * keeper's fd table up to then (CLONE_FILES): seccomp(2) puts the listener there; exec
 * gives the program a table of its own, in which it is closed. Fds 0 to 2, into which
 * the program's are put, mean nothing to the keeper.
 */
#define _GNU_SOURCE
#include "listener.h"

#include "sys.h"

#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>

#ifndef SYS_seccomp
#define SYS_seccomp 317
#endif

#define SECCOMP_SET_MODE_FILTER_OP 1
#define FILTER_FLAG_NEW_LISTENER 8u

struct answer {
    uint64_t id;
    int64_t value;
    int32_t error;
    uint32_t flags;
};

/* By the raw call: libcs disagree about the type of a request with its highest bit set. */
#define NOTIF_RECV _IOWR('!', 0, struct notice)
#define NOTIF_SEND _IOWR('!', 1, struct answer)

_Static_assert(sizeof(struct notice) == 80, "struct seccomp_notif");
_Static_assert(sizeof(struct answer) == 24, "struct seccomp_notif_resp");

struct filter_program {
    unsigned short length;
    const struct instruction *code;
};

int listener_reserve(void)
{
    for (int fd = LISTENER_FD; fd <= NULL_FD; fd++)
        if (open("/dev/null", O_RDWR | O_CLOEXEC) != fd)
            return -EBADF;
    return 0;
}

const struct filter *listener_filter(const struct plan *plan)
{
    static struct instruction code[FILTER_MAX];
    static struct filter filter = {.code = code};
    for (unsigned i = 0; i < plan->count; i++) {
        const struct step *step = &plan->steps[i];
        if (step->op != OP_seccomp || !step->arg[1])
            continue;
        if (step->length % sizeof *code || step->length > sizeof code)
            return NULL;                        /* seccomp(2) will say so */
        memcpy(code, step->data, step->length); /* which need not be aligned */
        filter.length = (unsigned)(step->length / sizeof *code);
        return &filter;
    }
    return NULL;
}

/*
 * LISTENER_FD is given up for it: the program's own limit of open files holds by now, and
 * the lowest free number has to be below it.
 */
int listener_install(const struct filter *filter, unsigned flags)
{
    static struct instruction code[FILTER_MAX];
    for (unsigned i = 0; i < filter->length; i++) {
        code[i] = filter->code[i];
        if (code[i].code == FILTER_RETURN && filter_kills(code[i].value))
            code[i].value = ANSWER_NOTIFY;
    }
    const struct filter_program program = {(unsigned short)filter->length, code};
    (void)close(LISTENER_FD);
    return (int)sys_result(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER_OP,
                                   flags | FILTER_FLAG_NEW_LISTENER, &program));
}

bool listener_misses(const struct filter *filter)
{
    bool misses = false;
    for (unsigned i = 0; i < filter->length; i++) {
        const struct instruction *one = &filter->code[i];
        bool trap = one->code == FILTER_RETURN && (one->value & ANSWER_ACTION) == ANSWER_TRAP;
        misses = misses || trap || one->code == FILTER_RETURN_A;
    }
    return misses;
}

/* dup3 of an fd that is open over a number that is: it cannot fail. */
void listener_release(int listener)
{
    for (int fd = 0; fd < 3; fd++)
        (void)dup3(NULL_FD, fd, 0);
    if (listener > 0 && listener != LISTENER_FD)
        close_fd(&listener);
    (void)dup3(NULL_FD, LISTENER_FD, O_CLOEXEC);
}

/* The sixth argument is the only one of an exec's that policies know (process.c). */
static bool asks(const struct filter *filter, long number, int64_t sixth)
{
#if defined __x86_64__
    const uint32_t arch = 0xc000003e;
#elif defined __aarch64__
    const uint32_t arch = 0xc00000b7;
#else
#error "AUDIT_ARCH_* of this machine"
#endif
    const struct call call = {
        .number = (int32_t)number, .arch = arch, .args = {[5] = (uint64_t)sixth}};
    uint32_t answer = filter_answer(filter, &call);
    return filter_kills(answer) || (answer & ANSWER_ACTION) == ANSWER_NOTIFY;
}

bool listener_delays_exec(const struct filter *filter, const struct plan *plan)
{
    bool delays = asks(filter, SYS_exit_group, 0);
    for (unsigned i = 0; i < plan->count; i++) {
        const struct step *step = &plan->steps[i];
        if (step->op == OP_exec)
            delays = delays || asks(filter, SYS_execve, step->arg[0]);
        else if (step->op == OP_exec_fd)
            delays = delays || asks(filter, SYS_execveat, step->arg[1]);
    }
    return delays;
}

int listener_receive(int listener, struct notice *notice)
{
    memset(notice, 0, sizeof *notice); /* else EINVAL */
    if (syscall(SYS_ioctl, listener, NOTIF_RECV, notice) == 0)
        return 1;
    return errno == ENOENT || errno == EINTR ? 0 : -errno; /* ENOENT: the caller has died */
}

void listener_refuse(int listener, const struct notice *notice, int error)
{
    const struct answer answer = {.id = notice->id, .error = -error};
    (void)syscall(SYS_ioctl, listener, NOTIF_SEND, &answer); /* ENOENT: the caller has died */
}
