/* A Landlock ruleset (landlock(7)): made, filled, and entered by the program's process. */
#define _GNU_SOURCE
#include "listener.h"
#include "steps.h"
#include "sys.h"

#include <fcntl.h>

#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule 445
#define SYS_landlock_restrict_self 446
#endif

enum { RULE_PATH_BENEATH = 1, RULE_NET_PORT = 2 };

/* Rights that a rule on something else than a directory may have, or it is EINVAL. */
#define FILE_RIGHTS (1u << 0 | 1u << 1 | 1u << 2 | 1u << 14 | 1u << 15)

/* Each ABI appends one; the kernel takes a longer one whose tail is 0. */
struct ruleset_attributes {
    uint64_t files, ports, scopes;
};

struct path_beneath {
    uint64_t rights;
    int32_t parent_fd;
} __attribute__((packed));

struct net_port {
    uint64_t rights, port;
};

/*
 * arg: what of files, ports, scopes is held. Its fd is close-on-exec, and has the number that
 * is given up for it; so have those of paths.
 */
int op_landlock(const struct step *step, struct context *context)
{
    const struct ruleset_attributes attributes = {
        .files = (uint64_t)step->arg[0],
        .ports = (uint64_t)step->arg[1],
        .scopes = (uint64_t)step->arg[2],
    };
    (void)close(RULESET_FD);
    long fd =
        sys_result(syscall(SYS_landlock_create_ruleset, &attributes, sizeof attributes, 0));
    if (fd < 0)
        return (int)fd;
    context->ruleset = (int)fd;
    return 0;
}

/* arg: rights; string: a path. Rights that only a directory can have are dropped for a file. */
int op_landlock_path(const struct step *step, struct context *context)
{
    struct stat status;
    (void)close(RULE_FD); /* EBADF: one before has been closed */
    cleanup_fd int fd = open(step->strings[0], O_PATH | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0)
        return -errno;
    struct path_beneath rule = {.rights = (uint64_t)step->arg[0], .parent_fd = fd};
    if (!S_ISDIR(status.st_mode))
        rule.rights &= FILE_RIGHTS;
    if (rule.rights == 0)
        return 0; /* ENOMSG for a rule that grants nothing */
    return (int)sys_result(
        syscall(SYS_landlock_add_rule, context->ruleset, RULE_PATH_BENEATH, &rule, 0));
}

/* arg: port, rights */
int op_landlock_port(const struct step *step, struct context *context)
{
    const struct net_port rule = {.rights = (uint64_t)step->arg[1],
                                  .port = (uint64_t)step->arg[0]};
    return (int)sys_result(
        syscall(SYS_landlock_add_rule, context->ruleset, RULE_NET_PORT, &rule, 0));
}

/* Needs no_new_privs. */
int op_landlock_restrict(const struct step *step, struct context *context)
{
    (void)step;
    int result = (int)sys_result(syscall(SYS_landlock_restrict_self, context->ruleset, 0));
    close_fd(&context->ruleset);
    return result;
}
