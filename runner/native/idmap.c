/*
 * Mounts in which the caller's files are the program's (mount_setattr(2),
 * MOUNT_ATTR_IDMAP; Linux 5.12, and not every file system). The kernel takes the
 * map from a user namespace, so one is made for as long as that takes.
 */
#define _GNU_SOURCE
#include "box.h"
#include "sys.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define MOUNT_ATTR_IDMAP_FLAG 0x00100000u

/* Give its maps to a new user namespace, which lives with `pid`, and open it. */
static int open_namespace(pid_t pid, const char *uid_map, const char *gid_map)
{
    char path[64];
    int error = write_proc(pid, "uid_map", uid_map);
    if (error == 0)
        error = write_proc(pid, "gid_map", gid_map);
    if (error < 0)
        return error;
    (void)snprintf(path, sizeof path, "/proc/%d/ns/user", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int user_namespace(const char *uid_map, const char *gid_map)
{
    int pidfd;
    pid_t pid = fork_pidfd(CLONE_NEWUSER_FLAG, &pidfd);
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
        for (;;)
            (void)pause();
    }
    if (pid < 0)
        return pid;
    int fd = open_namespace(pid, uid_map, gid_map);
    close_fd(&pidfd);
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
    return fd;
}

static int set_idmap(int tree, int userns, unsigned recursive)
{
    struct mount_attr_v0 attributes = {
        .attr_set = MOUNT_ATTR_IDMAP_FLAG,
        .userns_fd = (uint64_t)userns,
    };
    return (int)sys_result(syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH | recursive,
                                   &attributes, sizeof attributes));
}

/*
 * arg: slot; strings: uid_map, gid_map. With what is mounted below, or alone where
 * that cannot be mapped. Where this cannot be either (a file system without the
 * feature, or another user namespace's), the mount stays as it is: the program may
 * do less then, not more.
 */
int op_mount_idmap(const struct step *step, struct context *context)
{
    if (!context->places || step->arg[0] < 0 || step->arg[0] >= WIRE_SLOTS_MAX)
        return -EINVAL;
    int tree = context->places->slots[step->arg[0]];
    if (tree < 0)
        return 0;
    cleanup_fd int userns = user_namespace(step->strings[0], step->strings[1]);
    if (userns < 0)
        return userns;
    int result = set_idmap(tree, userns, AT_RECURSIVE_FLAG);
    if (result == -EINVAL || result == -EPERM)
        result = set_idmap(tree, userns, 0);
    return result == -EINVAL || result == -EPERM ? 0 : result;
}
