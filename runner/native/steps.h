/*
 * The interpreter of plans: one function an operation, one loop that turns a
 * failure into (location, errno, index).
 */
#pragma once

#include "plan.h"

#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/types.h>

struct heard;

enum report_state { REPORT_SETUP, REPORT_EXEC, REPORT_FAILED };

/*
 * One page shared with init and with the program until its exec. A failing step
 * is told by writing here, not by a message: writing memory cannot fail, works
 * under any seccomp filter, and wakes nobody up.
 */
struct report {
    _Atomic int state;
    int location;
    int error;
    int index;
    int step;
    int status;                      /* of a hook that failed; the type of what is no file */
    _Atomic int hook_error;          /* errno of a hook that could not be executed */
    _Atomic int listener;            /* 0: not yet; -1: none; else its fd, in our table */
    pid_t pid_inside;                /* the program's pid in its namespace */
    int64_t exec_ns;                 /* CLOCK_MONOTONIC just before exec (and the filter) */
    int64_t cpu_at_enter_ns;         /* own CPU time when it entered its cgroups */
    int64_t cpu_at_exec_ns;          /* and at exec: what lies between is ours */
    _Atomic int64_t orphans_user_ns; /* of what init has reaped, since it last answered */
    _Atomic int64_t orphans_system_ns;
};

/* A tmpfs or mqueue as it was when it was mounted, to see whether a run has touched it. */
struct fresh {
    bool recorded;
    struct stat when_mounted;
    ssize_t attributes; /* bytes of names of extended attributes */
    unsigned runs;      /* since it was made anew because that was due */
    ino_t number;       /* of the file that we have made last */
};

/* The number of a System V object that we have made last, and how far the next is from it. */
struct sysv_traces {
    int number;
    int stride;
};

/* What a network namespace has counted, and the files that tell; see traces.c. */
enum { TRACES_NET = 6, TRACES_TEXT = 16384 };

struct net_text {
    ssize_t size;
    char bytes[TRACES_TEXT];
};

struct net_traces {
    bool recorded;
    bool used; /* a run may have opened a socket that is not of AF_UNIX, since it was looked at
                */
    int directory; /* -1 when the files are open */
    int file[TRACES_NET];
    struct net_text text[TRACES_NET];
};

/* What a program's process says to the keeper before its exec. */
enum sync_word { SYNC_WAITS, SYNC_STOPS, SYNC_SEIZE };

/* What the steps of a sandbox, but not of a program, work on. */
struct places {
    int slots[WIRE_SLOTS_MAX]; /* detached mounts, -1 where there is none */
    struct fresh fresh[WIRE_SLOTS_MAX];
    struct fresh queues; /* POSIX message queues of the IPC namespace … */
    int queues_fd;       /* … seen through a mount that is nowhere, or -1 */
    struct sysv_traces sysv[3];
    unsigned ipc_runs; /* since the IPC namespace was made anew because that was due */
    struct net_traces net;
    pid_t init; /* as we see it */
    bool init_recorded;
    uint64_t init_limits[RLIM_NLIMITS][2];
    bool programs_use_proc; /* the caller's, of `context` */
    bool time_namespace;    /* programs are born in one that is not ours … */
    int64_t clock_shift_ns; /* … and what it adds to CLOCK_MONOTONIC */
};

/* What the steps work on. Index -1 in an fd argument gives -1. */
struct context {
    int *fds; /* what came with the frame */
    unsigned fd_count;
    struct places *places;     /* NULL in a program */
    pid_t target;              /* MAPS: the process whose id maps are written, else 0 */
    int pipes[2];              /* write ends for captured stdout and stderr, or -1 */
    int sync;                  /* rendezvous with the keeper before exec, or -1 */
    int sync_peer;             /* the keeper's end of it, of which a program has a copy */
    int notify;                /* its end tells the keeper of exec, or -1 */
    int ruleset;               /* of Landlock, while it is made; not read before that */
    int opened;                /* FILES: what a step has opened, or -1 */
    int host_proc;             /* the caller's /proc, for what is set by no call; or -1 */
    const struct heard *heard; /* its fds are the keeper's, who hears of this filter; or NULL */
    const char **argv;
    const char **envp;
    struct report *report;
};

#define OP_PROTOTYPE(name, payload, strings, fd_args) \
    int op_##name(const struct step *step, struct context *context);
OPS(OP_PROTOTYPE)
#undef OP_PROTOTYPE

/* Write a file below /proc/PID in one write, as the id maps want. Returns 0 or -errno. */
int write_proc(pid_t pid, const char *name, const char *text);

/* Open a file of our own, such as "self/…", in the caller's /proc for writing. Or -errno. */
int open_own(const struct context *context, const char *name);

/* Be these for files, and for nothing else. Returns 0 or -EPERM. */
int file_ids(uid_t uid, gid_t gid);

/* Run the plan's steps of one phase. Returns 0, or -1 with context->report filled. */
int steps_run(const struct plan *plan, enum phase phase, struct context *context);

/*
 * Is one of the places full that the plan of a run has limited? enum full, or -errno. Asked
 * when nobody writes any more.
 */
int places_full(const struct plan *plan);

/* Close what traces.c has opened. */
void traces_close(struct places *places);

/* May a step use this slot of detached mounts? */
bool slot_valid(const struct context *context, int64_t slot);

bool steps_have(const struct plan *plan, enum op op);

/* Note the moment of exec, once. Called before a filter could refuse the clock. */
void report_exec(struct report *report);
void report_failure(struct report *report, enum location location, int error, int index,
                    int step);
