/*
 * The rules of a supervised program. They are steps of its plan (phase SUPERVISE): one for each
 * call that stops, one for each pattern of paths. Where several are for one call, as for the
 * two paths of a rename, all have to allow it.
 */
#define _GNU_SOURCE
#include "decide.h"

#include "steps.h"
#include "sys.h"

#include <fcntl.h>
#include <string.h>

#define AT_SYMLINK_FOLLOW_FLAG 0x400
#define AT_SYMLINK_NOFOLLOW_FLAG 0x100

/* Read at launch, not executed. arg: arch << 32 | number, rule_kind, value, where (fields). */
int op_rule_call(const struct step *step, struct context *context)
{
    (void)step;
    (void)context;
    return 0;
}

/* string: a path; arg: path_set, path_match. */
int op_rule_path(const struct step *step, struct context *context)
{
    (void)step;
    (void)context;
    return 0;
}

/* arg: the errno with which a path in no set is refused, or 0: it ends the run; by notice? */
int op_rule_refuse(const struct step *step, struct context *context)
{
    (void)step;
    (void)context;
    return 0;
}

void rules_init(struct rules *rules, const struct plan *plan, int proc)
{
    memset(rules, 0, sizeof *rules);
    rules->plan = plan;
    rules->proc = proc;
    for (unsigned i = 0; i < plan->count; i++)
        if (plan->steps[i].op == OP_rule_refuse)
            rules->refuse_error = (int)plan->steps[i].arg[0];
}

bool rules_present(const struct plan *plan)
{
    return steps_have(plan, OP_rule_refuse);
}

bool rules_by_notice(const struct plan *plan)
{
    for (unsigned i = 0; i < plan->count; i++)
        if (plan->steps[i].op == OP_rule_refuse)
            return plan->steps[i].arg[1];
    return false;
}

static bool matches(const struct step *step, const char *path)
{
    const char *pattern = step->strings[0];
    size_t length = strlen(pattern);
    if (strcmp(path, pattern) == 0)
        return step->arg[1] != MATCH_CHILDREN;
    if (step->arg[1] == MATCH_EXACT)
        return false;
    if (strcmp(pattern, "/") == 0)
        length = 0;
    if (strncmp(path, pattern, length) != 0 || path[length] != '/' || path[length + 1] == 0)
        return false;
    return step->arg[1] == MATCH_BELOW || !strchr(path + length + 1, '/');
}

/* Is it in a set? Who may write may read, and who may read may stat. */
static bool in_set(const struct rules *rules, enum path_set set, const char *path)
{
    for (unsigned i = 0; i < rules->plan->count; i++) {
        const struct step *step = &rules->plan->steps[i];
        if (step->op != OP_rule_path)
            continue;
        bool fits = set == SET_BAN ? step->arg[0] == SET_BAN
                                   : step->arg[0] >= (int64_t)set && step->arg[0] != SET_BAN;
        if (fits && matches(step, path))
            return true;
    }
    return false;
}

/* Fields of a rule's fourth argument: see runner/supervision.py. */
static unsigned field(const struct step *step, unsigned at)
{
    return (unsigned)(step->arg[3] >> (4 * at)) & 15u;
}

static uint64_t argument(const struct call *call, unsigned number)
{
    return number < sizeof call->args / sizeof *call->args ? call->args[number] : 0;
}

enum { FIELD_DIRECTORY, FIELD_PATH, FIELD_FLAGS, FIELD_USE, FIELD_FOLLOW };

#define ACCESS_MODE 3u /* not a libc's O_ACCMODE: musl's has O_PATH in it */

/* What open(2) knows: it does not look at other bits, for which openat2 fails. */
#define OPEN_FLAGS                                                                          \
    (ACCESS_MODE | O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_APPEND | O_NONBLOCK | O_SYNC | \
     O_ASYNC | O_DIRECT | O_DIRECTORY | O_NOFOLLOW | O_NOATIME | O_CLOEXEC | O_PATH |       \
     O_TMPFILE)

/* Reading alone: neither access for writing, nor a file that is made or cut. */
static enum path_set set_of_open(uint64_t flags)
{
    bool reads = (flags & ACCESS_MODE) == O_RDONLY && !(flags & (O_CREAT | O_EXCL | O_TRUNC));
    return reads ? SET_READ : SET_WRITE;
}

struct question {
    enum path_set set;
    uint64_t flags, mode;
    bool open, elsewhere;
};

/* RESOLVE_NO_MAGICLINKS and RESOLVE_CACHED: with other flags a path leads elsewhere, or
 * nowhere. */
#define RESOLVE_AS_EVER 0x22u

/* struct open_how: what cannot be read is taken for writing. Read once, and used as read. */
static void read_how(pid_t tid, uint64_t address, struct question *question)
{
    uint64_t how[3];
    if (tracee_read(tid, address, how, sizeof how) < 0)
        how[0] = O_WRONLY, how[1] = how[2] = 0;
    question->flags = how[0];
    question->mode = how[1];
    question->elsewhere = how[2] & ~(uint64_t)RESOLVE_AS_EVER;
}

static struct question question_of(const struct step *step, pid_t tid, const struct call *call)
{
    unsigned at = field(step, FIELD_FLAGS);
    enum path_use use = field(step, FIELD_USE);
    struct question question = {.set = SET_STAT, .flags = at ? argument(call, at - 1) : 0};
    if (use == USE_READ || use == USE_WRITE)
        question.set = use == USE_READ ? SET_READ : SET_WRITE;
    if (use < USE_OPEN)
        return question;
    question.open = true;
    if (use == USE_CREAT) {
        question.flags = O_CREAT | O_WRONLY | O_TRUNC;
        question.mode = argument(call, 1);
    } else if (use == USE_OPENAT2)
        read_how(tid, question.flags, &question);
    else {
        question.flags &= OPEN_FLAGS;
        question.mode = argument(call, at);
    }
    question.set = set_of_open(question.flags);
    return question;
}

static bool follows(const struct step *step, const struct question *question)
{
    if (question->open)
        return !(question->flags & O_NOFOLLOW) &&
               (question->flags & (O_CREAT | O_EXCL)) != (O_CREAT | O_EXCL);
    switch (field(step, FIELD_FOLLOW)) {
    case FOLLOW_NO:
        return false;
    case FOLLOW_UNLESS_FLAG:
        return !(question->flags & AT_SYMLINK_NOFOLLOW_FLAG);
    case FOLLOW_IF_FLAG:
        return question->flags & AT_SYMLINK_FOLLOW_FLAG;
    default:
        return true;
    }
}

unsigned opening_access(uint64_t flags)
{
    static const unsigned of_mode[] = {ACCESS_READ, ACCESS_WRITE, ACCESS_READ | ACCESS_WRITE,
                                       ACCESS_READ | ACCESS_WRITE};
    return of_mode[flags & ACCESS_MODE] | (flags & O_TRUNC ? ACCESS_WRITE : 0);
}

/* What is done with one of its standard streams, by a path, its own fd has to allow. */
static int check_stream(const struct rules *rules, pid_t tid, const struct question *question,
                        const char *found)
{
    static const unsigned of_set[] = {
        [SET_STAT] = ACCESS_NONE, [SET_READ] = ACCESS_READ, [SET_WRITE] = ACCESS_WRITE};
    cleanup_fd int fd =
        tracee_stream(rules->proc, tid, found,
                      question->open ? opening_access(question->flags) : of_set[question->set]);
    return fd < 0 ? fd : 0;
}

static struct decision errno_of(int error)
{
    return (struct decision){.verdict = VERDICT_ERRNO, .error = error};
}

/* linkat's first path: the only one of which a flag says that symlinks are followed. */
static bool is_link(const struct step *step)
{
    return field(step, FIELD_FOLLOW) == FOLLOW_IF_FLAG;
}

/*
 * Find the path of a call. Returns true with *question and *found, whose verdict is to allow
 * it; false if *found is the decision: there is no path to judge.
 */
static bool find_path(struct rules *rules, const struct step *step, pid_t tid,
                      const struct call *call, struct question *question,
                      struct decision *found)
{
    struct tracee_path *path = &rules->path;
    *question = question_of(step, tid, call);
    *found = (struct decision){.verdict = VERDICT_ALLOW};
    unsigned directory = field(step, FIELD_DIRECTORY);
    uint64_t address = argument(call, field(step, FIELD_PATH));
    path->directory = directory ? (int)argument(call, directory - 1) : AT_FDCWD;
    path->follow = follows(step, question);
    if (question->elsewhere) { /* callers know how to do without openat2 */
        *found = errno_of(ENOSYS);
        return false;
    }
    /* A name for what is open: by it more could be done than by the fd. So says the kernel. */
    if (is_link(step) && question->flags & AT_EMPTY_PATH) {
        *found = errno_of(ENOENT);
        return false;
    }
    if (address == 0) /* by fd alone, as futimens(3) does; else the kernel says EFAULT */
        return false;
    int error = tracee_text(tid, address, path->name, sizeof path->name);
    if (error == 0 && path->name[0] == 0) { /* what is open was decided, or given */
        if (question->open)
            *found = errno_of(ENOENT);
        return false;
    }
    if (error == 0)
        error = tracee_find(rules->proc, tid, path);
    if (error < 0) {
        *found = errno_of(-error);
        return false;
    }
    found->path = path;
    if (question->open)
        found->opening = (struct opening){path, question->flags, question->mode};
    return true;
}

static struct decision decide_path(struct rules *rules, const struct step *step, pid_t tid,
                                   const struct call *call)
{
    struct question question;
    struct decision decision;
    if (!find_path(rules, step, tid, call, &question, &decision))
        return decision;
    if (tracee_path_standard(decision.path->found)) {
        int error = check_stream(rules, tid, &question, decision.path->found);
        return error < 0 ? errno_of(-error) : decision;
    }
    bool dangerous = tracee_path_dangerous(decision.path->found);
    if (!dangerous && in_set(rules, question.set, decision.path->found))
        return decision;
    decision.error = EACCES;
    decision.verdict = VERDICT_ERRNO;
    if (!dangerous && in_set(rules, SET_BAN, decision.path->found))
        return decision;
    if (rules->refuse_error > 0)
        decision.error = rules->refuse_error;
    else if (rules->refuse_error == 0)
        decision.verdict = VERDICT_KILL;
    else if (!dangerous)
        decision.verdict = VERDICT_ASK;
    return decision;
}

/* arg[2]: it has a path, by the fourth. */
static struct decision decide_ask(struct rules *rules, const struct step *step, pid_t tid,
                                  const struct call *call)
{
    struct question question;
    struct decision decision = {.verdict = VERDICT_ALLOW};
    if (step->arg[2])
        (void)find_path(rules, step, tid, call, &question, &decision);
    if (decision.verdict == VERDICT_ALLOW)
        decision.verdict = VERDICT_ASK;
    return decision;
}

static struct decision decide_one(struct rules *rules, unsigned at, pid_t tid,
                                  const struct call *call)
{
    const struct step *step = &rules->plan->steps[at];
    switch (step->arg[1]) {
    case RULE_ERRNO:
        return errno_of((int)step->arg[2]);
    case RULE_COUNT:
        if (rules->counts[at] < (uint64_t)step->arg[2]) {
            rules->counts[at]++;
            return (struct decision){.verdict = VERDICT_ALLOW};
        }
        return (struct decision){.verdict = VERDICT_KILL};
    case RULE_PATH:
        return decide_path(rules, step, tid, call);
    case RULE_ASK:
        return decide_ask(rules, step, tid, call);
    default:
        return (struct decision){.verdict = VERDICT_KILL};
    }
}

struct decision rules_decide(struct rules *rules, pid_t tid, const struct call *call)
{
    const int64_t key = (int64_t)((uint64_t)call->arch << 32 | (uint32_t)call->number);
    struct decision decision = {.verdict = VERDICT_ALLOW};
    bool known = false;
    for (unsigned i = 0; i < rules->plan->count && decision.verdict == VERDICT_ALLOW; i++) {
        const struct step *step = &rules->plan->steps[i];
        if (step->op != OP_rule_call || step->arg[0] != key)
            continue;
        known = true;
        decision = decide_one(rules, i, tid, call);
    }
    if (!known) /* it stopped by a filter of the program's own, or is no call of ours */
        decision = errno_of(ENOSYS);
    return decision;
}
