/* The keeper's decision about one call of a supervised program. */
#pragma once

#include "filter.h"
#include "plan.h"
#include "tracee.h"

#include <sys/types.h>

/* What a rule says of a call; numbered as runner/supervision.py does. */
enum rule_kind { RULE_ERRNO, RULE_KILL, RULE_COUNT, RULE_PATH, RULE_ASK };

/* What is done with a path: decides which set it has to be in. */
enum path_use { USE_STAT, USE_READ, USE_WRITE, USE_OPEN, USE_OPENAT2, USE_CREAT };

/* When a symlink at the end of a path is followed. */
enum path_follow {
    FOLLOW_YES,
    FOLLOW_NO,
    FOLLOW_UNLESS_FLAG, /* AT_SYMLINK_NOFOLLOW */
    FOLLOW_IF_FLAG,     /* AT_SYMLINK_FOLLOW */
};

enum path_set { SET_STAT, SET_READ, SET_WRITE, SET_BAN };
enum path_match { MATCH_EXACT, MATCH_CHILDREN, MATCH_BELOW };

enum verdict { VERDICT_ALLOW, VERDICT_ERRNO, VERDICT_KILL, VERDICT_ASK };

/* An open that was decided: what is opened, by whoever opens it. */
struct opening {
    struct tracee_path *path; /* NULL: it is no open */
    uint64_t flags, mode;
};

/* For what the fd that it gives can be used: ACCESS_*. */
unsigned opening_access(uint64_t flags);

struct decision {
    enum verdict verdict;
    int error;                /* of VERDICT_ERRNO */
    struct tracee_path *path; /* that was refused or is asked about, or NULL */
    struct opening opening;   /* of VERDICT_ALLOW and VERDICT_ASK */
};

/* The rules of a run: steps of its plan, and how often each counted call was made. */
struct rules {
    const struct plan *plan;
    int proc;         /* the caller's /proc, in which calls have their tid */
    int refuse_error; /* for a path in no set; 0: it ends the run; -1: the grader is asked */
    uint32_t counts[WIRE_STEPS_MAX];
    struct tracee_path path;
};

void rules_init(struct rules *rules, const struct plan *plan, int proc);
bool rules_present(const struct plan *plan);

/* Are the calls told by the filter's listener, and not to a tracer? */
bool rules_by_notice(const struct plan *plan);

/* All rules for this call have to allow it; the first that does not says how it ends. */
struct decision rules_decide(struct rules *rules, pid_t tid, const struct call *call);
