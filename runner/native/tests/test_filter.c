/* What filter.c says a filter answers, against the running kernel; and what it refuses. */
#define _GNU_SOURCE
#include "../filter.h"
#include "../listener.h"
#include "tap.h"

#include <linux/audit.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

enum { PROBE = 1000, PROGRAMS = 300, BODY = 60, WORDS = 16, LENGTH = WORDS + BODY + 8 };

#if defined __x86_64__
#define ARCH AUDIT_ARCH_X86_64
#else
#define ARCH AUDIT_ARCH_AARCH64
#endif

static uint32_t state = 20240917;

static uint32_t random_word(void)
{
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
}

static uint32_t below(uint32_t limit)
{
    return random_word() % limit;
}

/* What a filter may compute with; the kernel refuses constants that divide by 0 or shift out.
 */
static struct instruction random_instruction(unsigned left)
{
    static const uint16_t alu[] = {0x04, 0x14, 0x24, 0x34, 0x44, 0x54, 0x64, 0x74, 0x84, 0xa4};
    static const uint16_t jumps[] = {0x15, 0x25, 0x35, 0x45};
    const uint8_t over = (uint8_t)below(left), else_over = (uint8_t)below(left);
    struct instruction one = {.value = below(2) ? random_word() : below(8)};
    switch (below(12)) {
    case 0:
        return (struct instruction){.code = 0x20, .value = 4 * below(16)};
    case 1:
        return (struct instruction){.code = below(2) ? 0x00 : 0x01, .value = one.value};
    case 2:
        return (struct instruction){.code = below(2) ? 0x60 : 0x61, .value = below(WORDS)};
    case 3:
        return (struct instruction){.code = below(2) ? 0x02 : 0x03, .value = below(WORDS)};
    case 4:
        return (struct instruction){.code = below(2) ? 0x07 : 0x87};
    case 5:
        return (struct instruction){.code = below(2) ? 0x80 : 0x81};
    case 6:
        return (struct instruction){.code = 0x05, .value = over};
    case 7:
    case 8:
        one.code = (uint16_t)(jumps[below(4)] | (below(2) ? 8 : 0));
        one.if_true = over;
        one.if_false = else_over;
        return one;
    default:
        one.code = alu[below(10)];
        if (one.code == 0x64 || one.code == 0x74)
            one.value &= 31;
        if (one.code == 0x34)
            one.value |= 1;
        if (one.code != 0x84 && below(2))
            one.code |= 8;
        return one;
    }
}

/* Only PROBE is for the random part, of which the answer is an errno with A's lower bits. */
static unsigned random_filter(struct instruction *code)
{
    unsigned length = 0;
    code[length++] = (struct instruction){.code = 0x20};
    code[length++] = (struct instruction){.code = 0x15, .if_true = 1, .value = PROBE};
    code[length++] = (struct instruction){.code = FILTER_RETURN, .value = ANSWER_ALLOW};
    for (unsigned i = 0; i < WORDS; i++) /* what was not stored may not be loaded */
        code[length++] = (struct instruction){.code = below(2) ? 0x02 : 0x03, .value = i};
    for (unsigned i = 0; i < BODY; i++)
        code[length++] = random_instruction(BODY - i);
    code[length++] = (struct instruction){.code = 0x54, .value = 0xfff};
    code[length++] = (struct instruction){.code = 0x44, .value = ANSWER_ERRNO};
    code[length++] = (struct instruction){.code = FILTER_RETURN_A};
    return length;
}

struct trial {
    struct filter filter;
    struct call call;
    uint32_t expected;
};

/* 0: as expected; the call itself may die. */
static int call_under(const void *argument)
{
    const struct trial *trial = argument;
    const struct {
        unsigned short length;
        const struct instruction *code;
    } program = {(unsigned short)trial->filter.length, trial->filter.code};
    const uint64_t *args = trial->call.args;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || syscall(SYS_seccomp, 1, 0, &program) < 0)
        return 2;
    long result = syscall(PROBE, args[0], args[1], args[2], args[3], args[4], args[5]);
    int error = result < 0 ? errno : 0;
    return error == (int)(trial->expected & 0xfff) ? 0 : 1;
}

/* The instruction pointer is not known before, so filters that look at it are left out. */
static bool looks_at_pointer(const struct filter *filter)
{
    for (unsigned i = 0; i < filter->length; i++)
        if (filter->code[i].code == 0x20 &&
            (filter->code[i].value == 8 || filter->code[i].value == 12))
            return true;
    return false;
}

static void test_against_the_kernel(void)
{
    static struct instruction code[LENGTH];
    unsigned tried = 0, killed = 0, wrong = 0, refused = 0;
    while (tried < PROGRAMS) {
        struct trial trial = {.filter = {code, random_filter(code)},
                              .call = {.number = PROBE, .arch = ARCH}};
        if (looks_at_pointer(&trial.filter))
            continue;
        for (int i = 0; i < 6; i++)
            trial.call.args[i] =
                below(2) ? below(9) : (uint64_t)random_word() << 32 | random_word();
        trial.expected = filter_answer(&trial.filter, &trial.call);
        int status = in_child(call_under, &trial);
        bool kills = filter_kills(trial.expected);
        refused += status == 2;
        wrong += status != (kills ? 128 + SIGSYS : 0);
        killed += kills;
        tried++;
    }
    check(refused == 0, "the kernel takes every one of %u random filters", tried);
    check(wrong == 0, "and answers as we do (%u of %u otherwise)", wrong, tried);
    check(killed > 0 && killed < tried / 2, "a division by 0 kills: %u times", killed);
}

static void test_what_no_filter_may_do(void)
{
    static const struct instruction faults[] = {
        {.code = 0x20, .value = 64},         /* past the call */
        {.code = 0x20, .value = 2},          /* not a whole word */
        {.code = 0x21, .value = 0},          /* into X */
        {.code = 0x28},                      /* a half word */
        {.code = 0x60, .value = WORDS},      /* past the memory */
        {.code = 0x02, .value = WORDS},      /* the same */
        {.code = 0x94, .value = 3},          /* remainder: not for seccomp */
        {.code = 0x55},                      /* no such jump */
        {.code = 0x05, .value = UINT32_MAX}, /* past the end, and round */
        {.code = 0x15, .if_true = 9},        /* past the end */
        {.code = 0x0f},                      /* no such move */
    };
    const struct call call = {.number = 0};
    bool kill = true;
    for (unsigned i = 0; i < sizeof faults / sizeof *faults; i++) {
        const struct instruction code[] = {faults[i],
                                           {.code = FILTER_RETURN, .value = ANSWER_ALLOW}};
        kill = kill && filter_answer(&(struct filter){code, 2}, &call) == 0;
    }
    check(kill, "what no filter may do kills");
    check(filter_answer(&(struct filter){NULL, 0}, &call) == 0, "an empty filter kills");
}

static void test_answers(void)
{
    static const uint32_t kills[] = {0, 0x80000000, 0x12340000, 0xffffffff};
    static const uint32_t others[] = {0x30001,    0x50026,    ANSWER_NOTIFY,
                                      0x7ff00007, ANSWER_LOG, ANSWER_ALLOW | 5};
    bool right = true;
    for (unsigned i = 0; i < sizeof kills / sizeof *kills; i++)
        right = right && filter_kills(kills[i]);
    for (unsigned i = 0; i < sizeof others / sizeof *others; i++)
        right = right && !filter_kills(others[i]);
    check(right, "kills are told from other answers");

    struct instruction code[] = {{.code = FILTER_RETURN, .value = 0},
                                 {.code = FILTER_RETURN, .value = ANSWER_ERRNO | 1}};
    struct heard heard = {.filter = {code, 2}, .what = HEAR_KILLS};
    check(!listener_misses(&heard), "a listener hears of all kills");
    code[1].value = ANSWER_TRAP | 1;
    check(listener_misses(&heard), "but not of traps");
    code[1].code = FILTER_RETURN_A;
    check(listener_misses(&heard), "nor of what is computed");
    heard.what = HEAR_ALL;
    check(!listener_misses(&heard), "unless it hears of all calls");
}

int main(void)
{
    test_against_the_kernel();
    test_what_no_filter_may_do();
    test_answers();
    return finish();
}
