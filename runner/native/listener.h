/* A filter that asks where it would refuse, and the fd by which the keeper hears it. */
#pragma once

#include "filter.h"
#include "plan.h"

/*
 * The program's process shares the keeper's fds up to its exec, and may be killed at any
 * moment before it. So what it opens has numbers that are kept for that.
 */
enum { LISTENER_FD = 4, RULESET_FD, RULE_FD, NULL_FD };

/* struct seccomp_notif */
struct notice {
    uint64_t id;
    uint32_t pid;
    uint32_t flags;
    struct call call;
};

/* A filter as the plan has it, and of which of its answers the keeper hears. */
struct heard {
    struct filter filter;
    enum hearing what;
    bool permissive;
    bool sockets; /* and of calls that open sockets, which do what the filter says */
};

/* Take the numbers, once. Returns 0 or -errno. */
int listener_reserve(void);

/* The filter that a plan wants us to listen to, or NULL. It holds until the next call. */
const struct heard *listener_wanted(const struct plan *plan);

/* Install it, in the program's process. Returns the listener, or -errno. */
int listener_install(const struct heard *heard, unsigned flags);

/* Is there a notice where the filter gives this answer? */
bool listener_asks(const struct heard *heard, uint32_t answer);

/* Can the filter still raise SIGSYS? It has traps, or answers that were computed. */
bool listener_misses(const struct heard *heard);

/* Take the program's fds and the listener (0 or less: none) out of the keeper's table. */
void listener_release(int listener);

/* Would it ask of what is still to be called once it is installed, up to the exec? */
bool listener_delays_exec(const struct heard *heard, const struct plan *plan);

/* Returns 1, 0 if there is nothing (any more), or -errno. */
int listener_receive(int listener, struct notice *notice);

/* Does the caller still wait for its answer? It then was alive, its number its own, till now.
 */
bool listener_waits(int listener, const struct notice *notice);

/* Make the call fail with an errno; or succeed and do nothing, with 0. */
void listener_refuse(int listener, const struct notice *notice, int error);

/* Let it happen. Linux 5.5; before that it fails with ENOSYS. */
void listener_allow(int listener, const struct notice *notice);
