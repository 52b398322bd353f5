/* What the keeper does with the calls of which its filter gives it notice. */
#pragma once

#include "watch.h"

/*
 * The program's process shares our fds while we do not sleep: has its filter been installed?
 * Returns when to look again.
 */
int64_t hear_find(struct watch *watch);

/*
 * End the run for a call, which is never answered: so it does not happen, even if we came
 * late. If the set-up has failed, its filter does not let it exit: that is no violation.
 */
void hear_end_for(struct watch *watch, const struct call *call);

/* Before a run: nothing is asked of the grader … */
void hear_nothing_asked(void);

/* … and may one more call be? Else the listener is not looked at. */
bool hear_has_room(void);

/* The grader's word on a call that it was asked of, as ANSWER has it. */
void hear_answer(struct watch *watch, uint64_t answer);

/* The listener is ready, by these events of poll(2). */
void hear_notice(struct watch *watch, int events);
