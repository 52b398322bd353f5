/* That the filter gives notice of just those calls that the keeper takes for such. */
#include "../sockets.h"
#include "tap.h"

#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#if defined __x86_64__
enum { OLDER = 0x40000003, SOCKET_THERE = 359 };
#define HERE 0xc000003eu
#else
enum { OLDER = 0x40000028, SOCKET_THERE = 281 };
#define HERE 0xc00000b7u
#endif

enum { SOCKETCALL_THERE = 102, IO_URING = 425, ERROR = ANSWER_ERRNO | 7 };

static uint32_t answer(const struct call *call)
{
    struct instruction code[SOCKETS_LENGTH + 1];
    sockets_ask(code);
    code[SOCKETS_LENGTH] = (struct instruction){.code = FILTER_RETURN, .value = ERROR};
    return filter_answer(&(struct filter){code, SOCKETS_LENGTH + 1}, call);
}

static bool told(uint32_t arch, long number, uint64_t family)
{
    const struct call call = {.number = (int32_t)number, .arch = arch, .args = {family}};
    bool told = sockets_opened_by(&call);
    return told == (answer(&call) == ANSWER_NOTIFY) ? told : !told;
}

static void test_calls(void)
{
    check(told(HERE, SYS_socket, AF_INET), "a socket of AF_INET is told");
    check(told(HERE, SYS_socket, AF_INET6), "one of AF_INET6");
    check(told(HERE, SYS_socket, AF_NETLINK), "one of AF_NETLINK");
    check(!told(HERE, SYS_socket, AF_UNIX), "one of AF_UNIX is not");
    check(!told(HERE, SYS_socket, (1ull << 40) | AF_UNIX), "whatever the upper half holds");
    check(told(HERE, SYS_socket, (1ull << 32) * AF_UNIX), "which does not make it one");
    check(told(HERE, IO_URING, 0), "io_uring is told");
    check(!told(HERE, SYS_socketpair, AF_INET), "a pair is not: there is none but of AF_UNIX");
    check(!told(HERE, SYS_getpid, 0), "another call is not");
    check(told(OLDER, SOCKET_THERE, AF_UNIX), "a socket of the older ABI is told");
    check(told(OLDER, SOCKETCALL_THERE, 0), "and what makes them by a number");
    check(told(OLDER, IO_URING, 0), "and its io_uring");
    check(!told(OLDER, SYS_socket, AF_INET), "and no call of another number");
#if defined __x86_64__
    check(told(HERE, 0x40000000 | SYS_socket, AF_INET), "a socket of x32 is told");
    check(told(HERE, 0x40000000 | IO_URING, 0), "and its io_uring");
#endif
}

/* Of each number in each ABI, with families at random, both say the same. */
static void test_that_both_agree(void)
{
    static const uint32_t archs[] = {HERE, OLDER, 0, 0xffffffff};
    bool agree = true, all_else_goes_on = true;
    for (unsigned i = 0; i < sizeof archs / sizeof *archs; i++)
        for (int64_t number = -2; number < 1 << 11; number++) {
            const uint64_t family = (uint64_t)random() % 12 << (random() % 2 ? 32 : 0);
            const int32_t x32 = random() % 2 ? 0x40000000 : 0;
            const struct call call = {
                .number = (int32_t)number | x32, .arch = archs[i], .args = {family}};
            const uint32_t given = answer(&call);
            agree = agree && (given == ANSWER_NOTIFY) == sockets_opened_by(&call);
            all_else_goes_on = all_else_goes_on && (given == ANSWER_NOTIFY || given == ERROR);
        }
    check(agree, "the filter asks of just those calls that open sockets");
    check(all_else_goes_on, "and all others are the next filter's");
}

static void test_filters_that_can_be_asked(void)
{
    static struct instruction code[FILTER_MAX];
    struct filter filter = {code, 2};
    code[1] = (struct instruction){.code = FILTER_RETURN, .value = ANSWER_ALLOW};
    static const uint32_t plain[] = {ANSWER_ALLOW, ERROR, ANSWER_NOTIFY, 0, 0x80000000};
    static const uint32_t others[] = {ANSWER_TRAP | 1, ANSWER_TRACE | 2, ANSWER_LOG};
    for (unsigned i = 0; i < sizeof plain / sizeof *plain; i++) {
        code[0] = (struct instruction){.code = FILTER_RETURN, .value = plain[i]};
        check(sockets_can_be_told(&filter), "%#x can be done by us", plain[i]);
    }
    for (unsigned i = 0; i < sizeof others / sizeof *others; i++) {
        code[0] = (struct instruction){.code = FILTER_RETURN, .value = others[i]};
        check(!sockets_can_be_told(&filter), "%#x can only be done by the kernel", others[i]);
    }
    code[0] = (struct instruction){.code = FILTER_RETURN_A};
    check(!sockets_can_be_told(&filter), "what is computed may be any of them");
    for (unsigned i = 0; i < FILTER_MAX; i++)
        code[i] = code[1];
    filter.length = FILTER_MAX - SOCKETS_LENGTH;
    check(sockets_can_be_told(&filter), "a filter for which there is room");
    filter.length++;
    check(!sockets_can_be_told(&filter), "and one for which there is none");
}

int main(void)
{
    test_calls();
    test_that_both_agree();
    test_filters_that_can_be_asked();
    return finish();
}
