/*
 * The loop over a plan's steps and the table of operations. What is done and in
 * which order is decided in Python (runner/plan/); here is only how.
 */
#define _GNU_SOURCE
#include "steps.h"

#include "sys.h"

typedef int op_function(const struct step *step, struct context *context);

#define OP_ENTRY(name, payload, strings, fd_args) [OP_##name] = op_##name,
static op_function *const operations[OP_END] = {OPS(OP_ENTRY)};
#undef OP_ENTRY

int steps_run(const struct plan *plan, enum phase phase, struct context *context)
{
    for (unsigned i = 0; i < plan->count; i++) {
        const struct step *step = &plan->steps[i];
        if (step->phase != phase)
            continue;
        int result = operations[step->op](step, context);
        if (result < 0) {
            report_failure(context->report, step->location, -result, step->index, (int)i);
            return -1;
        }
    }
    return 0;
}

bool steps_have(const struct plan *plan, enum op op)
{
    for (unsigned i = 0; i < plan->count; i++)
        if (plan->steps[i].op == op)
            return true;
    return false;
}

void report_exec(struct report *report)
{
    if (atomic_load(&report->state) != REPORT_SETUP)
        return;
    report->exec_ns = clock_ns(CLOCK_MONOTONIC);
    report->cpu_at_exec_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    atomic_store(&report->state, REPORT_EXEC);
}

void report_failure(struct report *report, enum location location, int error, int index,
                    int step)
{
    report->location = location;
    report->error = error;
    report->index = index;
    report->step = step;
    atomic_store(&report->state, REPORT_FAILED);
}
