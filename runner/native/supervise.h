/* A program whose calls the keeper decides, as its tracer. */
#pragma once

#include "decide.h"

struct supervisor {
    struct rules rules;
    struct filter filter; /* as the plan has it: it says why a call has stopped */
    struct instruction code[FILTER_MAX];
    pid_t program;
    int children; /* tells of stops, or -1 */
};

/* Returns 0 or -errno. Before the program is started: it inherits nothing of this. */
int supervise_open(struct supervisor *supervisor, const struct plan *plan, int proc);

/* It waits to be traced: do, and let it go on. Returns 0 or -errno. */
int supervise_seize(const struct supervisor *supervisor, int sync);
void supervise_close(struct supervisor *supervisor);

/*
 * Answer for all that have stopped. Returns 0, -errno, or 1 if a call ends the run: then
 * *call and *decision say which and why.
 */
int supervise(struct supervisor *supervisor, struct call *call, struct decision *decision);
