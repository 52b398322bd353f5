/* Operations on ids, groups and capabilities. */
#define _GNU_SOURCE
#include "steps.h"
#include "sys.h"

#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

int write_proc(pid_t pid, const char *name, const char *text)
{
    char path[64];
    int length = snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    if (length < 0 || (size_t)length >= sizeof path)
        return -EINVAL;
    cleanup_fd int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    return write_text(fd, text, strlen(text));
}

/* strings: uid_map, setgroups or gid_map, and its text */
int op_id_map(const struct step *step, struct context *context)
{
    return write_proc(context->target, step->strings[0], step->strings[1]);
}

/*
 * Raw calls: a libc's set*id would signal the other threads of a process that
 * has none. blob: list of uint32 gids.
 */
int op_setgroups(const struct step *step, struct context *context)
{
    (void)context;
    if (step->length % sizeof(uint32_t))
        return -EINVAL;
    return (int)sys_result(syscall(SYS_setgroups, step->length / sizeof(uint32_t),
                                   step->length ? step->data : NULL));
}

int op_setgid(const struct step *step, struct context *context)
{
    (void)context;
    long gid = (long)step->arg[0];
    return (int)sys_result(syscall(SYS_setresgid, gid, gid, gid));
}

/* Also clears the parent-death signal and the dumpable flag (prctl(2)). */
int op_setuid(const struct step *step, struct context *context)
{
    (void)context;
    long uid = (long)step->arg[0];
    return (int)sys_result(syscall(SYS_setresuid, uid, uid, uid));
}

/* arg: SECBIT_* (capabilities(7)) */
int op_securebits(const struct step *step, struct context *context)
{
    (void)context;
    return (int)sys_result(prctl(PR_SET_SECUREBITS, (unsigned long)step->arg[0], 0, 0, 0));
}

/* arg: mask of what to keep of the bounding set. EINVAL: past the kernel's last. */
int op_drop_bounding(const struct step *step, struct context *context)
{
    (void)context;
    const uint64_t kept = (uint64_t)step->arg[0];
    for (unsigned long capability = 0; capability < 64; capability++) {
        if (kept >> capability & 1)
            continue;
        if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0)
            continue;
        return errno == EINVAL && capability > 0 ? 0 : -errno;
    }
    return 0;
}

/* Keep what is permitted through the change of uid that follows, until exec. */
int op_keep_caps(const struct step *step, struct context *context)
{
    (void)step;
    (void)context;
    return (int)sys_result(prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0));
}

/* args: masks for effective, permitted and inheritable; what is ambient shrinks to fit. */
int op_capset(const struct step *step, struct context *context)
{
    (void)context;
    struct cap_header header = {.version = CAPABILITY_VERSION_3};
    struct cap_data data[2];
    for (int half = 0; half < 2; half++)
        data[half] = (struct cap_data){
            .effective = (uint32_t)((uint64_t)step->arg[0] >> (32 * half)),
            .permitted = (uint32_t)((uint64_t)step->arg[1] >> (32 * half)),
            .inheritable = (uint32_t)((uint64_t)step->arg[2] >> (32 * half)),
        };
    return (int)sys_result(syscall(SYS_capset, &header, data));
}

/* arg: mask of what to raise in the ambient set */
int op_ambient(const struct step *step, struct context *context)
{
    (void)context;
    for (unsigned long capability = 0; capability < 64; capability++)
        if (((uint64_t)step->arg[0] >> capability & 1) &&
            prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0) < 0)
            return -errno;
    return 0;
}
