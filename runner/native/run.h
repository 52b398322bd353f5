/* One run of a program in a sandbox. */
#pragma once

#include "box.h"

/*
 * Handle a RUN: start the program, watch it, end it, and fill *reply. Returns 0,
 * or -1 when the grader has gone: everything is to end then.
 */
int run_program(struct box *box, struct frame *frame, int control, struct report *report,
                struct wire_reply *reply);

/* Let go of what is left of a run, once it is answered. */
void run_release(struct box *box);
