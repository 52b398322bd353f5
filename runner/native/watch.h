/* What happens while a program runs, and what we do about it. */
#pragma once

#include "box.h"
#include "capture.h"
#include "listener.h"
#include "supervise.h"

#include <sys/resource.h>

struct watch {
    struct box *box;
    const struct wire_watch *limits;
    const struct report *report;
    struct capture capture;
    uint64_t run_id;
    int control;
    int cpu_fd;
    int procs_fd;
    bool follow;
    pid_t program;
    int pidfd;
    int sync;                  /* rendezvous with the program before its exec, or -1 */
    const struct heard *heard; /* the filter of which we get notice, or NULL */
    int listener;              /* by which we do, or -1 */
    bool heard_all;            /* nobody is left who could give any */
    bool begun;                /* the program has made a call of its own */
    bool opens_sockets;        /* it has called what may open one that is not of AF_UNIX */
    int ledger;                /* where the notices go, or -1 */
    int ends[2];               /* of the captured streams, in fds that it shares; or -1 */
    struct wire_violation violation;
    int notify; /* ends when the program execs, or -1 */
    int notes_fd;
    int counter;
    int stops; /* tells of a tracee's stops, or -1: not traced to its exit */
    enum cause cause;
    bool aborted; /* the grader's sync callback has said no */
    bool gone;    /* the grader has closed its end */
    bool reaped;
    bool synchronising;            /* the grader's callback runs, or a tracer has it */
    bool traced;                   /* by us, until its exec */
    struct supervisor *supervisor; /* who decides its calls as its tracer, or NULL */
    struct rules *rules; /* by which its calls are decided that its filter asks of, or NULL */
    int error;           /* -errno of a failure of ours, and where */
    enum location error_location;
    int status;
    struct rusage usage;
    int64_t started_ns;
    int64_t born_ns; /* how long the clone took, to its exec if it borrowed our memory */
    int64_t ended_ns;
    int64_t cpu_base_ns;
    int64_t cpu_used_ns; /* by the tree, when it was looked at last */
    int64_t tree_ns;     /* followed: the sum over its processes then … */
    int64_t lost_ns;     /* … and what has vanished from it since the start */
    int64_t active_ns;   /* when it was last seen to use CPU */
    int64_t active_cpu_ns;
    int64_t memory_now;  /* as seen by following … */
    int64_t memory_peak; /* … at its highest, or -1 */
    int64_t read_ns;     /* when notes were read last, at an exit … */
    int64_t reading_ns;  /* … and how long it stood there meanwhile */
    bool first_ended;    /* traced: its first thread */
    bool noted;          /* what is read when it has ended */
};

/* Are its fd indexes within what came with the frame? */
bool watch_valid(const struct wire_watch *limits, unsigned fd_count);
void watch_init(struct watch *watch, struct box *box, const struct frame *frame, int control,
                const struct report *report);
void watch_close(struct watch *watch);

/* Returns when the program has been reaped: 0, or -1 if the grader has gone. */
int watch_program(struct watch *watch);

/* Does the program's cgroup say that nothing is left? Without one: no. */
bool watch_tree_empty(const struct watch *watch);

/* Kill the program at once, and all else of the run. */
void watch_kill(struct watch *watch);

/* End the program and write down why. Only the first cause counts. */
void watch_end(struct watch *watch, enum cause cause);

/* Note that we have failed, and kill the program. Only the first failure counts. */
void watch_fail(struct watch *watch, enum location location, int error);

/* Apply the output limit to what has been carried so far. */
void watch_output(struct watch *watch);
