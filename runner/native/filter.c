/*
 * Classic BPF, as far as seccomp_check_filter() of the kernel lets it pass. The
 * kernel has checked a filter before it runs it, we have not: nothing here relies
 * on that.
 */
#include "filter.h"

#include <string.h>

enum { MEMORY_WORDS = 16 }; /* BPF_MEMWORDS */

/* <linux/bpf_common.h>: the low three bits of a code are its class, bit 3 says "with X". */
enum { LD, LDX, ST, STX, ALU, JMP, RET, MISC, CLASS = 7, WITH_X = 8 };
enum {
    LD_IMMEDIATE = 0x00,
    LD_CALL = 0x20,
    LD_MEMORY = 0x60,
    LD_LENGTH = 0x80,
    LD_KIND = 0xf8
};
enum { MISC_TO_X = 0x07, MISC_TO_A = 0x87 };

struct machine {
    uint32_t a, x;
    uint32_t memory[MEMORY_WORDS];
};

/* What LD and LDX bring. Returns false if there is no such thing. */
static bool load(const struct instruction *one, const struct machine *machine,
                 const struct call *call, uint32_t *loaded)
{
    switch (one->code & LD_KIND) {
    case LD_IMMEDIATE:
        *loaded = one->value;
        return true;
    case LD_CALL:
        if (one->value % 4 || one->value >= sizeof *call || (one->code & CLASS) != LD)
            return false;
        memcpy(loaded, (const uint8_t *)call + one->value, sizeof *loaded);
        return true;
    case LD_MEMORY:
        if (one->value >= MEMORY_WORDS)
            return false;
        *loaded = machine->memory[one->value];
        return true;
    case LD_LENGTH:
        *loaded = sizeof *call;
        return true;
    default:
        return false;
    }
}

/* Shifts are of the low five bits of the number, as in the kernel's own machine. */
static bool compute(unsigned operation, uint32_t *a, uint32_t with)
{
    switch (operation) {
    case 0x00:
        *a += with;
        return true;
    case 0x10:
        *a -= with;
        return true;
    case 0x20:
        *a *= with;
        return true;
    case 0x30:
        *a = with ? *a / with : 0;
        return with != 0;
    case 0x40:
        *a |= with;
        return true;
    case 0x50:
        *a &= with;
        return true;
    case 0x60:
        *a <<= with & 31;
        return true;
    case 0x70:
        *a >>= with & 31;
        return true;
    case 0x80:
        *a = 0 - *a;
        return true;
    case 0xa0:
        *a ^= with;
        return true;
    default:
        return false;
    }
}

/* How many instructions are left out; one too many is found by the caller. */
static bool jump(const struct instruction *one, uint32_t a, uint32_t with, uint32_t *over)
{
    bool holds;
    switch (one->code & 0xf0) {
    case 0x00:
        *over = one->value;
        return true;
    case 0x10:
        holds = a == with;
        break;
    case 0x20:
        holds = a > with;
        break;
    case 0x30:
        holds = a >= with;
        break;
    case 0x40:
        holds = a & with;
        break;
    default:
        return false;
    }
    *over = holds ? one->if_true : one->if_false;
    return true;
}

/* One instruction but a return. Returns false for what no filter may do. */
static bool step(const struct instruction *one, struct machine *machine,
                 const struct call *call, uint32_t *over)
{
    const uint32_t with = one->code & WITH_X ? machine->x : one->value;
    switch (one->code & CLASS) {
    case LD:
        return load(one, machine, call, &machine->a);
    case LDX:
        return load(one, machine, call, &machine->x);
    case ST:
    case STX:
        if (one->value >= MEMORY_WORDS)
            return false;
        machine->memory[one->value] = (one->code & CLASS) == ST ? machine->a : machine->x;
        return true;
    case ALU:
        return compute(one->code & 0xf0, &machine->a, with);
    case JMP:
        return jump(one, machine->a, with, over);
    case MISC:
        if (one->code == MISC_TO_X)
            machine->x = machine->a;
        else
            machine->a = machine->x;
        return one->code == MISC_TO_X || one->code == MISC_TO_A;
    default:
        return false;
    }
}

bool filter_take(struct filter *filter, struct instruction code[FILTER_MAX], const void *bytes,
                 size_t size)
{
    if (size % sizeof *code || size > FILTER_MAX * sizeof *code)
        return false; /* seccomp(2) will say so */
    memcpy(code, bytes, size);
    *filter = (struct filter){.code = code, .length = (unsigned)(size / sizeof *code)};
    return true;
}

uint32_t filter_answer(const struct filter *filter, const struct call *call)
{
    struct machine machine = {0};
    for (uint64_t at = 0; at < filter->length; at++) { /* forward only: it ends */
        const struct instruction *one = &filter->code[at];
        uint32_t over = 0;
        if (one->code == FILTER_RETURN)
            return one->value;
        if (one->code == FILTER_RETURN_A)
            return machine.a;
        if (!step(one, &machine, call, &over))
            return 0; /* so the kernel ends a division by 0 */
        at += over;
    }
    return 0;
}

bool filter_kills(uint32_t answer)
{
    switch (answer & ANSWER_ACTION) {
    case ANSWER_TRAP:
    case ANSWER_ERRNO:
    case ANSWER_NOTIFY:
    case ANSWER_TRACE:
    case ANSWER_LOG:
    case ANSWER_ALLOW:
        return false;
    default:
        return true;
    }
}

bool filter_asks(const struct filter *filter)
{
    for (unsigned i = 0; i < filter->length; i++)
        if (filter->code[i].code == FILTER_RETURN &&
            (filter->code[i].value & ANSWER_ACTION) == ANSWER_NOTIFY)
            return true;
    return false;
}
