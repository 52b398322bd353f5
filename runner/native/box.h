/* One sandbox, as the keeper holds it. */
#pragma once

#include "control.h"
#include "kept.h"
#include "steps.h"

#include <sys/types.h>

struct box {
    struct frame frame; /* the START request: its plan is needed for CLEAN */
    struct plan plan;
    struct recent_plan recent; /* of programs: test after test is the same */
    struct context context;
    struct places places;
    bool started;
    bool unclean;  /* a run has left its files to be taken out */
    bool damaged;  /* CLEAN failed: its report goes to the next run */
    bool has_init; /* it has a pid namespace of its own */
    pid_t init_pid;
    int init_pidfd;
    int init_socket;
    unsigned kills_asked; /* INIT_KILLs that init has not answered */
    int proc;             /* the sandbox's /proc, or -1 */
    int children;         /* signalfd of SIGCHLD while we trace what is in it, or -1 */
    int numbers;          /* sets the next pid in it, see birth.h, or -1 */
    int grader;           /* pidfd of the process that started us, or -1; not the box's own */
    struct wire_reply damage;
    bool heard;   /* by `listener` of the last run, which is still to be released */
    int listener; /* as listener_release wants it */
    struct kept kept;
    struct readings readings; /* of the last run */
};

/* Handle a START. Returns 0, or -1 with *reply saying what failed; all of it is undone then. */
/* A plan that is no plan was refused; or there was no memory for it, and it failed. */
void box_refuse(struct wire_reply *reply, int error);

int box_start(struct box *box, struct frame *frame, struct report *report,
              struct wire_reply *reply);

/* Kill all processes in it but init, at once and without waiting. */
void box_kill(struct box *box);

/* Kill and reap all processes in it but init. Returns 0 or -errno: init has not answered. */
int box_empty(struct box *box);

/* Put back what a run may have changed. On failure the box is damaged. */
void box_clean(struct box *box);

/* Handle FILES: run its steps. Returns the fd that was opened, or -1. */
int box_files(struct box *box, struct frame *frame, struct report *report,
              struct wire_reply *reply);

/* Handle PING: does init answer? */
void box_ping(const struct frame *frame, struct box *box, struct wire_reply *reply);

/* Make *reply say which step has failed. */
void box_report(struct wire_reply *reply, const struct report *report);

/* End it, and all that is in it. */
void box_end(struct box *box);

/* fork() with a pidfd, without libc's handlers. Returns as fork does, -errno on failure. */
pid_t fork_pidfd(unsigned long flags, int *pidfd);
