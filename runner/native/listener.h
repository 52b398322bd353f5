/* A filter that asks instead of killing, and the fd by which the keeper hears it. */
#pragma once

#include "filter.h"
#include "plan.h"

/* The program's process shares the keeper's fds up to its exec: these numbers are kept. */
enum { LISTENER_FD = 4, NULL_FD = 5 };

/* struct seccomp_notif */
struct notice {
    uint64_t id;
    uint32_t pid;
    uint32_t flags;
    struct call call;
};

/* Take the two numbers, once. Returns 0 or -errno. */
int listener_reserve(void);

/* The filter that a plan wants us to listen to, or NULL. It holds until the next call. */
const struct filter *listener_filter(const struct plan *plan);

/*
 * Install a filter of which the kills are notices, in the program's process. Returns the
 * listener, or -errno.
 */
int listener_install(const struct filter *filter, unsigned flags);

/* Can the filter still raise SIGSYS? It has traps, or answers that were computed. */
bool listener_misses(const struct filter *filter);

/* Take the program's fds and the listener (0 or less: none) out of the keeper's table. */
void listener_release(int listener);

/* Would it ask of what is still to be called once it is installed, up to the exec? */
bool listener_delays_exec(const struct filter *filter, const struct plan *plan);

/* Returns 1, 0 if there is nothing (any more), or -errno. */
int listener_receive(int listener, struct notice *notice);

/* Make the call fail with an errno. */
void listener_refuse(int listener, const struct notice *notice, int error);
