/*
 * A kill by a seccomp filter tells nobody which call it was: wait4 gives SIGSYS, the
 * kernel's log is root's. So in the filter that is installed the kills, and the other
 * refusals if they are to be told too, are SECCOMP_RET_USER_NOTIF (Linux 5.0): the call
 * waits, and whoever holds the listener learns its number, architecture and arguments.
 *
 * That has to be the keeper, and no call may be needed to hand the listener over, for
 * the filter need allow none but the exec. So the program's process shares the
 * keeper's fd table up to then (CLONE_FILES): seccomp(2) puts the listener there; exec
 * gives the program a table of its own, in which it is closed. Fds 0 to 2, into which
 * the program's are put, mean nothing to the keeper.
 */
#define _GNU_SOURCE
#include "listener.h"

#include "sockets.h"
#include "sys.h"

#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>

#ifndef SYS_seccomp
#define SYS_seccomp 317
#endif

#define SECCOMP_SET_MODE_FILTER_OP 1
#define FILTER_FLAG_NEW_LISTENER 8u
#define FILTER_FLAG_WAIT_KILLABLE_RECV 32u
#define ANSWER_FLAG_CONTINUE 1u

struct answer {
    uint64_t id;
    int64_t value;
    int32_t error;
    uint32_t flags;
};

/* By the raw call: libcs disagree about the type of a request with its highest bit set. */
#define NOTIF_RECV _IOWR('!', 0, struct notice)
#define NOTIF_SEND _IOWR('!', 1, struct answer)
#define NOTIF_ID_VALID _IOW('!', 2, uint64_t) /* by this number since Linux 5.8 */

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

const struct heard *listener_wanted(const struct plan *plan)
{
    static struct instruction code[FILTER_MAX];
    static struct heard heard;
    for (unsigned i = 0; i < plan->count; i++) {
        const struct step *step = &plan->steps[i];
        if (step->op != OP_seccomp || step->arg[1] == HEAR_NOTHING)
            continue;
        if (!filter_take(&heard.filter, code, step->data, step->length))
            return NULL;
        heard.what = (enum hearing)(step->arg[1] & HEAR_WHAT);
        heard.permissive = step->arg[1] & HEAR_PERMISSIVE;
        heard.sockets = heard.what == HEAR_ALL || sockets_can_be_told(&heard.filter);
        return &heard;
    }
    return NULL;
}

/*
 * Of a trap only if it does nothing: nobody but the kernel can send that signal. Of what a
 * tracer decides never.
 */
bool listener_asks(const struct heard *heard, uint32_t answer)
{
    const uint32_t action = answer & ANSWER_ACTION;
    if (heard->what == HEAR_ALL)
        return true;
    if (heard->what == HEAR_REFUSALS)
        return action != ANSWER_ALLOW && action != ANSWER_TRACE &&
               (action != ANSWER_TRAP || heard->permissive);
    return action == ANSWER_NOTIFY || filter_kills(answer);
}

/* What is installed in its place. Returns its length. */
static unsigned rewrite(const struct heard *heard, struct instruction *code)
{
    const struct filter *filter = &heard->filter;
    if (heard->what == HEAR_ALL) {
        code[0] = (struct instruction){.code = FILTER_RETURN, .value = ANSWER_NOTIFY};
        return 1;
    }
    const unsigned before = heard->sockets ? SOCKETS_LENGTH : 0;
    if (heard->sockets)
        sockets_ask(code);
    code += before;
    for (unsigned i = 0; i < filter->length; i++) {
        code[i] = filter->code[i];
        if (code[i].code == FILTER_RETURN && listener_asks(heard, code[i].value))
            code[i].value = ANSWER_NOTIFY;
    }
    return before + filter->length;
}

/*
 * LISTENER_FD is given up for it: the program's own limit of open files holds by now, and
 * the lowest free number has to be below it. What goes on after its notice should be told
 * once, counted once and opened once: not again because a signal has come meanwhile
 * (WAIT_KILLABLE_RECV, Linux 5.19).
 */
int listener_install(const struct heard *heard, unsigned flags)
{
    static struct instruction code[FILTER_MAX];
    const struct filter_program program = {(unsigned short)rewrite(heard, code), code};
    const unsigned listen = flags | FILTER_FLAG_NEW_LISTENER;
    long result = -EINVAL;
    (void)close(LISTENER_FD);
    if (heard->what != HEAR_KILLS || heard->sockets || filter_asks(&heard->filter))
        result = sys_result(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER_OP,
                                    listen | FILTER_FLAG_WAIT_KILLABLE_RECV, &program));
    if (result == -EINVAL)
        result = sys_result(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER_OP, listen, &program));
    return (int)result;
}

bool listener_misses(const struct heard *heard)
{
    bool misses = false;
    for (unsigned i = 0; i < heard->filter.length; i++) {
        const struct instruction *one = &heard->filter.code[i];
        bool trap = one->code == FILTER_RETURN && (one->value & ANSWER_ACTION) == ANSWER_TRAP &&
                    !listener_asks(heard, one->value);
        misses = misses || trap || one->code == FILTER_RETURN_A;
    }
    return misses && heard->what != HEAR_ALL;
}

/* dup3 of an fd that is open over a number that is: it cannot fail. */
void listener_release(int listener)
{
    for (int fd = 0; fd < 3; fd++)
        (void)dup3(NULL_FD, fd, 0);
    if (listener > 0 && listener != LISTENER_FD)
        close_fd(&listener);
    for (int fd = LISTENER_FD; fd < NULL_FD; fd++)
        (void)dup3(NULL_FD, fd, O_CLOEXEC);
}

/* The sixth argument is the only one of an exec's that policies know (process.c). */
static bool asks_of(const struct heard *heard, long number, int64_t sixth)
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
    return listener_asks(heard, filter_answer(&heard->filter, &call));
}

bool listener_delays_exec(const struct heard *heard, const struct plan *plan)
{
    bool delays = asks_of(heard, SYS_exit_group, 0);
    for (unsigned i = 0; i < plan->count; i++) {
        const struct step *step = &plan->steps[i];
        if (step->op == OP_exec)
            delays = delays || asks_of(heard, SYS_execve, step->arg[0]);
        else if (step->op == OP_exec_fd)
            delays = delays || asks_of(heard, SYS_execveat, step->arg[1]);
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

bool listener_waits(int listener, const struct notice *notice)
{
    return syscall(SYS_ioctl, listener, NOTIF_ID_VALID, &notice->id) == 0;
}

static void reply(int listener, const struct answer *answer)
{
    /* ENOENT: the caller has died, or a signal has taken it out of the call. */
    (void)syscall(SYS_ioctl, listener, NOTIF_SEND, answer);
}

void listener_refuse(int listener, const struct notice *notice, int error)
{
    const struct answer answer = {.id = notice->id, .error = -error};
    reply(listener, &answer);
}

void listener_allow(int listener, const struct notice *notice)
{
    const struct answer answer = {.id = notice->id, .flags = ANSWER_FLAG_CONTINUE};
    reply(listener, &answer);
}
