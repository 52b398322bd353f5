/* The first process in the new namespaces. */
#pragma once

#include "steps.h"

/* Words between keeper and init, one byte each. */
enum init_word {
    INIT_GO = 'g',     /* keeper: the id maps are written */
    INIT_READY = 'r',  /* init: set up, or report->state is REPORT_FAILED */
    INIT_JOINED = 'j', /* keeper: has joined the namespaces */
    INIT_SEALED = 's', /* init: can no longer be inspected */
    INIT_KILL = 'k',   /* keeper: kill and reap all but yourself */
    INIT_EMPTY = 'e',  /* init: done, nobody is left */
    INIT_MORE = 'm',   /* init: done, but somebody else's zombies are left */
};

/* Runs in init; never returns. `stay`: it is pid 1, else only the namespaces' midwife. */
_Noreturn void init_main(const struct plan *plan, struct context *context, int keeper,
                         bool stay);
