/*
 * Whatever a network namespace counts and remembers, a socket has been opened for. To
 * read all that after each run takes longer than any other look, and most programs open
 * none: so the filter gives notice of the calls that do, and only then it is read.
 *
 * socket(2) with its family by value, in the ABI of this machine and in the older one,
 * and io_uring, whose calls no filter sees. All other ways lead to the same: accept(2)
 * needs a socket, socketpair(2) makes but those of AF_UNIX (and of TIPC, which counts
 * nothing), and who is given one by a message has it from the same run.
 */
#define _GNU_SOURCE
#include "sockets.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

/* AUDIT_ARCH_*, and what of the older ABI is not as here. */
#if defined __x86_64__
enum { SOCKET_OLDER = 359 };
#define ARCH_NATIVE 0xc000003eu
#elif defined __aarch64__
enum { SOCKET_OLDER = 281 };
#define ARCH_NATIVE 0xc00000b7u
#else
#error "AUDIT_ARCH_* of this machine"
#endif

enum { SOCKETCALL_OLDER = 102, IO_URING_SETUP = 425 };
#define X32_BIT                                                                  \
    0x40000000u /* in a number of the ABI of this machine; elsewhere none has it \
                 */

bool sockets_opened_by(const struct call *call)
{
    uint32_t number = (uint32_t)call->number;
    if (call->arch != ARCH_NATIVE)
        return number == SOCKET_OLDER || number == SOCKETCALL_OLDER || number == IO_URING_SETUP;
    number &= ~X32_BIT;
    return number == IO_URING_SETUP ||
           (number == SYS_socket && (uint32_t)call->args[0] != AF_UNIX);
}

/* May a call go on after its notice? Linux 5.5: before it, it would fail with ENOSYS. */
static bool can_go_on(void)
{
    struct utsname host;
    if (uname(&host) < 0)
        return false;
    char *end = host.release;
    unsigned long major = strtoul(end, &end, 10);
    unsigned long minor = *end == '.' ? strtoul(end + 1, NULL, 10) : 0;
    return major > 5 || (major == 5 && minor >= 5);
}

/* What a trap, a tracer or the kernel's log is for, only the kernel can do. */
static bool can_be_done(const struct instruction *one)
{
    const uint32_t action = one->value & ANSWER_ACTION;
    if (one->code == FILTER_RETURN_A)
        return false;
    return one->code != FILTER_RETURN || action == ANSWER_ALLOW || action == ANSWER_ERRNO ||
           action == ANSWER_NOTIFY || filter_kills(action);
}

bool sockets_can_be_told(const struct filter *filter)
{
    bool can = filter->length + SOCKETS_LENGTH <= FILTER_MAX && can_go_on();
    for (unsigned i = 0; can && i < filter->length; i++)
        can = can_be_done(&filter->code[i]);
    return can;
}

void sockets_ask(struct instruction code[SOCKETS_LENGTH])
{
    enum { LOAD = 0x20, AND = 0x54, IF_EQUAL = 0x15 };
    enum { NUMBER = 0, ARCH = 4, FAMILY = 16 };       /* offsets in struct seccomp_data */
    enum { ASK = SOCKETS_LENGTH - 1, END = ASK + 1 }; /* to jump to, from the next line */
    const struct instruction program[SOCKETS_LENGTH] = {
        {LOAD, 0, 0, ARCH},
        {IF_EQUAL, 4, 0, ARCH_NATIVE},
        {LOAD, 0, 0, NUMBER},
        {IF_EQUAL, ASK - 4, 0, SOCKET_OLDER},
        {IF_EQUAL, ASK - 5, 0, SOCKETCALL_OLDER},
        {IF_EQUAL, ASK - 6, END - 6, IO_URING_SETUP},
        {LOAD, 0, 0, NUMBER},
        {AND, 0, 0, ~X32_BIT},
        {IF_EQUAL, ASK - 9, 0, IO_URING_SETUP},
        {IF_EQUAL, 0, END - 10, SYS_socket},
        {LOAD, 0, 0, FAMILY}, /* its lower half: the kernel takes an int */
        {IF_EQUAL, END - 12, ASK - 12, AF_UNIX},
        {FILTER_RETURN, 0, 0, ANSWER_NOTIFY},
    };
    for (unsigned i = 0; i < SOCKETS_LENGTH; i++)
        code[i] = program[i];
}
