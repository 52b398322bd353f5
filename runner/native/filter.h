/* What a seccomp filter says of a call, worked out by us: classic BPF over seccomp_data. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* struct sock_filter */
struct instruction {
    uint16_t code;
    uint8_t if_true;
    uint8_t if_false;
    uint32_t value;
};

/* struct seccomp_data */
struct call {
    int32_t number;
    uint32_t arch; /* AUDIT_ARCH_* */
    uint64_t instruction;
    uint64_t args[6];
};

enum { FILTER_MAX = 4096 }; /* BPF_MAXINSNS */

struct filter {
    const struct instruction *code;
    unsigned length;
};

/* Copy a filter's bytes, which need not be aligned. Returns false for what is no filter. */
bool filter_take(struct filter *filter, struct instruction code[FILTER_MAX], const void *bytes,
                 size_t size);

/* SECCOMP_RET_*: the upper half of an answer; the lower half is its data. */
#define ANSWER_TRAP 0x00030000u
#define ANSWER_ERRNO 0x00050000u
#define ANSWER_NOTIFY 0x7fc00000u
#define ANSWER_TRACE 0x7ff00000u
#define ANSWER_LOG 0x7ffc0000u
#define ANSWER_ALLOW 0x7fff0000u
#define ANSWER_ACTION 0xffff0000u
#define ANSWER_DATA 0x0000ffffu

/* The code of an instruction that returns a constant, and of the one that returns A. */
enum { FILTER_RETURN = 0x06, FILTER_RETURN_A = 0x16 };

/* The answer to a call; 0, which kills, where the kernel would not take the filter. */
uint32_t filter_answer(const struct filter *filter, const struct call *call);

/* Does it ask a listener about some calls? */
bool filter_asks(const struct filter *filter);

/* Does it end the thread or the process? So do answers that the kernel does not know. */
bool filter_kills(uint32_t answer);
