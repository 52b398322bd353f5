/*
 * Operations on the mount tree; binds.c has those for kernels without open_tree.
 *
 * What is bound is first opened as a detached tree (open_tree): as root by the
 * keeper, which can reach files that the sandbox's own ids cannot; else by init.
 * Targets are made and mounted on after pivot_root, when the old root is gone, so
 * no path in them, not even a planted symlink, leads to the host.
 */
#define _GNU_SOURCE
#include "paths.h"
#include "steps.h"
#include "sys.h"

#include <fcntl.h>
#include <sys/fsuid.h>
#include <sys/mount.h>
#include <sys/statfs.h>

static const char *or_null(const char *text)
{
    return *text ? text : NULL;
}

bool slot_valid(const struct context *context, int64_t slot)
{
    return context->places && slot >= 0 && slot < WIRE_SLOTS_MAX;
}

/* arg: slot, recursive?, optional?, follow a link? */
int op_open_tree(const struct step *step, struct context *context)
{
    if (!slot_valid(context, step->arg[0]))
        return -EINVAL;
    unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC;
    if (step->arg[1])
        flags |= AT_RECURSIVE_FLAG;
    if (!step->arg[3])
        flags |= AT_SYMLINK_NOFOLLOW;
    long fd = sys_result(syscall(SYS_open_tree, AT_FDCWD, step->strings[0], flags));
    if (fd == -ENOENT && step->arg[2])
        return 0; /* move_mount sees the empty slot */
    if (fd < 0)
        return (int)fd;
    context->places->slots[step->arg[0]] = (int)fd;
    return step->arg[3] ? 0 : refuse_link((int)fd);
}

/* arg: slot, attributes to set, attributes to clear. Always recursive and private. */
int op_mount_setattr(const struct step *step, struct context *context)
{
    if (!slot_valid(context, step->arg[0]))
        return -EINVAL;
    int fd = context->places->slots[step->arg[0]];
    if (fd < 0)
        return 0;
    struct mount_attr_v0 attributes = {
        .attr_set = (uint64_t)step->arg[1],
        .attr_clr = (uint64_t)step->arg[2],
        .propagation = MS_PRIVATE, /* a clone stays in its peer group otherwise */
    };
    return (int)sys_result(syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH | AT_RECURSIVE_FLAG,
                                   &attributes, sizeof attributes));
}

/* arg: slot, what may be there. Does nothing when the slot is empty: it was optional. */
int op_move_mount(const struct step *step, struct context *context)
{
    struct stat source;
    if (!slot_valid(context, step->arg[0]))
        return -EINVAL;
    int *fd = &context->places->slots[step->arg[0]];
    if (*fd < 0)
        return 0;
    int result = fstat(*fd, &source) < 0 ? -errno : 0;
    if (result == 0)
        result = make_target(&source, step->strings[0], (enum target)step->arg[1]);
    if (result == 0)
        result = (int)sys_result(syscall(SYS_move_mount, *fd, "", AT_FDCWD, step->strings[0],
                                         MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_SYMLINKS_FLAG));
    close_fd(fd);
    return result;
}

/* Make all permitted capabilities effective: a change of the fsuid takes some away. */
static int raise_capabilities(void)
{
    struct cap_header header = {.version = CAPABILITY_VERSION_3};
    struct cap_data data[2];
    if (syscall(SYS_capget, &header, data) < 0)
        return -errno;
    for (int half = 0; half < 2; half++)
        data[half].effective = data[half].permitted;
    return (int)sys_result(syscall(SYS_capset, &header, data));
}

static int call_mount(const struct step *step)
{
    return (int)sys_result(mount(or_null(step->strings[0]), step->strings[1],
                                 or_null(step->strings[2]), (unsigned long)step->arg[0],
                                 or_null(step->strings[3])));
}

/* overlayfs works on its layers, for ever, with the credentials of who has mounted it. */
static int mount_as(const struct step *step)
{
    if (!step->arg[1])
        return call_mount(step);
    (void)setfsgid((gid_t)step->arg[2]); /* they give the id that was before, never an error */
    (void)setfsuid((uid_t)step->arg[1]);
    int result = raise_capabilities();
    if (result == 0)
        result = call_mount(step);
    (void)setfsuid(geteuid());
    (void)setfsgid(getegid());
    return result;
}

/*
 * arg: flags, ids for the file system (0: as we are); strings: source, target, file
 * system, data. What the kernel mounts read-only, as overlayfs if it cannot use its work
 * directory, was not mounted as it was meant.
 */
int op_mount(const struct step *step, struct context *context)
{
    (void)context;
    struct statfs status;
    int result = mount_as(step);
    if (result < 0 || !*step->strings[2] || step->arg[0] & MS_RDONLY)
        return result;
    if (statfs(step->strings[1], &status) < 0)
        return -errno;
    return status.f_flags & MS_RDONLY ? -EROFS : 0;
}

int op_umount(const struct step *step, struct context *context)
{
    (void)context;
    return (int)sys_result(umount2(step->strings[0], (int)step->arg[0]));
}

int op_pivot_root(const struct step *step, struct context *context)
{
    (void)context;
    return (int)sys_result(syscall(SYS_pivot_root, step->strings[0], step->strings[1]));
}

int op_chroot(const struct step *step, struct context *context)
{
    (void)context;
    return (int)sys_result(chroot(step->strings[0]));
}
