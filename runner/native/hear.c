/*
 * A call of which the filter gives notice has come from somewhere in the tree, and waits.
 * What the filter as the plan has it says of it is worked out here, and done.
 */
#define _GNU_SOURCE
#include "hear.h"

#include "inject.h"
#include "ledger.h"
#include "listener.h"
#include "sockets.h"
#include "sys.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>

enum { MAX_ERRNO = 4095 }; /* to which the kernel cuts an answer down */

int64_t hear_find(struct watch *watch)
{
    if (!watch->heard || watch->listener >= 0)
        return INT64_MAX;
    int listener = atomic_load(&watch->report->listener);
    if (listener == 0)
        return clock_ns(CLOCK_MONOTONIC) + MS_NS;
    watch->listener = listener;
    return INT64_MAX;
}

void hear_end_for(struct watch *watch, const struct call *call)
{
    if (atomic_load(&watch->report->state) == REPORT_FAILED) {
        watch_kill(watch);
        return;
    }
    if (watch->cause != CAUSE_NONE || watch->error < 0)
        return;
    watch->violation.number = call->number;
    watch->violation.arch = call->arch;
    watch->violation.instruction = call->instruction;
    memcpy(watch->violation.args, call->args, sizeof watch->violation.args);
    watch_end(watch, CAUSE_SYSCALL);
}

/* The exec that starts the program, and its attempts along PATH, are calls of ours. */
static bool is_start(struct watch *watch, const struct notice *notice)
{
    const int32_t number = notice->call.number;
    if ((pid_t)notice->pid == watch->program && number != SYS_execve && number != SYS_execveat)
        watch->begun = true;
    return !watch->begun;
}

/* Calls that wait for the grader's word. More of them wait for their turn with the kernel. */
enum { ASKED_MAX = 16 };

static struct asked {
    bool waits;
    struct notice notice;
    struct opening opening;
    struct tracee_path path;
} asked[ASKED_MAX];

static struct asked *free_place(void)
{
    for (int i = 0; i < ASKED_MAX; i++)
        if (!asked[i].waits)
            return &asked[i];
    return NULL;
}

void hear_nothing_asked(void)
{
    for (int i = 0; i < ASKED_MAX; i++)
        asked[i].waits = false;
}

bool hear_has_room(void)
{
    return free_place() != NULL;
}

static void ask(struct watch *watch, const struct notice *notice,
                const struct decision *decision)
{
    struct asked *place = free_place();
    struct wire_reply reply = reply_make(REPLY_ASKED, watch->run_id);
    const char *path = decision->path ? decision->path->found : "";
    if (!place)
        return; /* we have not looked for more */
    place->waits = true;
    place->notice = *notice;
    place->opening = decision->opening;
    if (decision->opening.path) {
        place->path = *decision->path;
        place->opening.path = &place->path;
    }
    reply.index = (int32_t)(place - asked);
    reply.pid = (int32_t)notice->pid;
    reply.violation.number = notice->call.number;
    reply.violation.arch = notice->call.arch;
    reply.violation.instruction = notice->call.instruction;
    memcpy(reply.violation.args, notice->call.args, sizeof reply.violation.args);
    if (reply_send(watch->control, &reply, path, strlen(path) + 1) < 0)
        watch_kill(watch); /* nobody is there; its end is seen by the control socket */
}

/* An O_PATH fd cannot be handed over (EBADF), and nothing can be read or written by it. */
static void let(struct watch *watch, const struct notice *notice, const struct opening *opening)
{
    if (opening->path && !(opening->flags & O_PATH))
        inject(watch->listener, notice, watch->rules, opening);
    else
        listener_allow(watch->listener, notice);
}

/* The call has a rule. */
static void decide(struct watch *watch, const struct notice *notice)
{
    pid_t tid = (pid_t)notice->pid;
    const struct decision decision = rules_decide(watch->rules, tid, &notice->call);
    switch (decision.verdict) {
    case VERDICT_ALLOW:
        let(watch, notice, &decision.opening);
        break;
    case VERDICT_ERRNO:
        listener_refuse(watch->listener, notice, decision.error);
        break;
    case VERDICT_KILL:
        hear_end_for(watch, &notice->call);
        break;
    case VERDICT_ASK:
        ask(watch, notice, &decision);
        break;
    }
}

void hear_answer(struct watch *watch, uint64_t answer)
{
    const uint32_t index = (uint32_t)answer, verdict = (uint32_t)(answer >> 32);
    if (index >= ASKED_MAX || !asked[index].waits)
        return;
    asked[index].waits = false;
    const struct notice *notice = &asked[index].notice;
    if (verdict == ANSWER_END)
        hear_end_for(watch, &notice->call);
    else if (verdict != ANSWER_LET)
        listener_refuse(watch->listener, notice,
                        (int)(verdict < MAX_ERRNO ? verdict : MAX_ERRNO));
    else
        let(watch, notice, &asked[index].opening);
}

static void answer_notice(struct watch *watch, const struct notice *notice, uint32_t answer)
{
    switch (watch->heard->permissive ? ANSWER_ALLOW : answer & ANSWER_ACTION) {
    case ANSWER_ALLOW:
    case ANSWER_LOG:
        listener_allow(watch->listener, notice);
        break;
    case ANSWER_ERRNO:
        answer &= ANSWER_DATA;
        listener_refuse(watch->listener, notice,
                        (int)(answer < MAX_ERRNO ? answer : MAX_ERRNO));
        break;
    case ANSWER_NOTIFY: /* to a supervisor or a tracer, of whom there is none */
    case ANSWER_TRACE:
        listener_refuse(watch->listener, notice, ENOSYS);
        break;
    default:
        hear_end_for(watch, &notice->call);
    }
}

void hear_notice(struct watch *watch, int events)
{
    struct notice notice;
    if (!(events & POLLIN)) {
        watch->heard_all = true; /* its last process is dying, and ready it stays */
        return;
    }
    int got = listener_receive(watch->listener, &notice);
    if (got < 0)
        watch_fail(watch, LOCATION_WATCH, got);
    if (got <= 0)
        return;
    uint32_t answer = filter_answer(&watch->heard->filter, &notice.call);
    watch->opens_sockets = watch->opens_sockets || sockets_opened_by(&notice.call);
    if (watch->rules && (answer & ANSWER_ACTION) == ANSWER_NOTIFY) {
        decide(watch, &notice);
        return;
    }
    if (watch->heard->what == HEAR_ALL
            ? !is_start(watch, &notice)
            : watch->heard->what == HEAR_REFUSALS && listener_asks(watch->heard, answer))
        ledger_add(&notice, answer);
    answer_notice(watch, &notice, answer);
}
