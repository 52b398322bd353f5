/*
 * plan_decode, fed with anything: it must refuse or give a plan of which every
 * byte can be read. The first byte of the input is the number of fds.
 *
 * The target of clang's libFuzzer; tests/test_corpus.c feeds it without one.
 */
#include "plan.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

static uint64_t touched; /* global, so that no read is optimized away */

static void touch(const void *bytes, size_t size)
{
    const uint8_t *at = bytes;
    for (size_t i = 0; i < size; i++)
        touched += at[i];
}

static void must(bool holds)
{
    if (!holds)
        abort();
}

/* What the operations rely on without a check of their own. */
static void use(const struct step *step, unsigned fd_count)
{
    must(step->op < OP_END && step->phase < PHASE_END);
    must(step->location > LOCATION_NONE && step->location < LOCATION_END);
    for (unsigned i = 0; i < step->string_count; i++)
        touch(step->strings[i], strlen(step->strings[i]) + 1);
    must(step->strings[step->string_count] == NULL);
    touch(step->data, step->length);
    if (step->op == OP_enter_cgroup || step->op == OP_setns || step->op == OP_exec_fd)
        must(step->arg[0] >= -1 && step->arg[0] < (int64_t)fd_count);
    for (int i = 2; step->op == OP_hook && i < 4; i++)
        must(step->arg[i] >= -1 && step->arg[i] < (int64_t)fd_count);
    for (size_t i = 0; step->op == OP_place_fds && i < step->length; i += sizeof(int32_t)) {
        int32_t source;
        memcpy(&source, step->data + i, sizeof source);
        must(source >= FD_STDERR_PIPE && source < (int32_t)fd_count);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    if (size == 0)
        return 0;
    unsigned fd_count = input[0];
    struct plan plan;
    int fault;
    if (plan_decode(&plan, input + 1, size - 1, fd_count, &fault) == 0) {
        must(plan.count > 0 && plan.count <= WIRE_STEPS_MAX && fault == -1);
        for (unsigned i = 0; i < plan.count; i++)
            use(&plan.steps[i], fd_count);
    } else {
        must(fault >= -1 && fault < WIRE_STEPS_MAX && plan.steps == NULL &&
             plan.strings == NULL);
    }
    plan_free(&plan);
    return 0;
}
