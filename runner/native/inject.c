/*
 * An open that was decided is done by the keeper: it opens the very path that it has found and
 * judged, without following a symlink on the way, and hands the fd over (Linux 5.14). What the
 * program does to the path meanwhile changes nothing.
 *
 * It opens with the program's rights, not its own: its ids, no capability, its umask. Only for
 * that moment; the program cannot see the keeper, nor signal it.
 */
#define _GNU_SOURCE
#include "inject.h"

#include "steps.h"
#include "sys.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#ifndef SYS_openat2
#define SYS_openat2 437
#endif

#define RESOLVE_NO_SYMLINKS_FLAG 4u
#define ADDFD_SEND 2u

struct added_fd {
    uint64_t id;
    uint32_t flags, source, target, target_flags;
};

#define NOTIF_ADDFD _IOW('!', 3, struct added_fd)

struct how {
    uint64_t flags, mode, resolve;
};

/* What an open is decided by, besides the path. */
struct identity {
    uint32_t uid, gid;
    bool changes, capable;
};

/* The program's, as its plan set it: it cannot have changed it since. */
static struct identity identity_of(const struct plan *plan)
{
    struct identity identity = {.capable = !steps_have(plan, OP_capset)};
    for (unsigned i = 0; i < plan->count; i++) {
        const struct step *step = &plan->steps[i];
        if (step->op == OP_setuid)
            identity.uid = (uint32_t)step->arg[0], identity.changes = true;
        else if (step->op == OP_setgid)
            identity.gid = (uint32_t)step->arg[0];
    }
    return identity;
}

static int capabilities(bool set, struct cap_data data[2])
{
    const struct cap_header header = {CAPABILITY_VERSION_3, 0};
    return (int)sys_result(syscall(set ? SYS_capset : SYS_capget, &header, data));
}

/* Field of proc_pid_status(5), in octal. */
static mode_t umask_of(int proc, pid_t tid)
{
    char path[64], text[512];
    (void)snprintf(path, sizeof path, "%d/status", (int)tid);
    cleanup_fd int fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    text[got > 0 ? got : 0] = 0;
    const char *field = strstr(text, "\nUmask:");
    return field ? (mode_t)strtoul(field + strlen("\nUmask:"), NULL, 8) : 077;
}

/*
 * From where, and by which path, to open what was found. /proc/self is the program's, not ours;
 * its standard streams are opened through their links, which lead to nothing else.
 */
static int start_of(const struct rules *rules, pid_t tid, const char *found, char *path,
                    size_t size, uint64_t *resolve)
{
    const char *self = "/proc/self/", *thread = "/proc/thread-self/";
    char root[64];
    *resolve = RESOLVE_NO_SYMLINKS_FLAG;
    if (strncmp(found, self, strlen(self)) == 0)
        (void)snprintf(path, size, "%d/%s", (int)tid, found + strlen(self));
    else if (strncmp(found, thread, strlen(thread)) == 0)
        (void)snprintf(path, size, "%d/%s", (int)tid, found + strlen(thread));
    else {
        (void)snprintf(path, size, "%s", found[1] ? found + 1 : ".");
        (void)snprintf(root, sizeof root, "%d/root", (int)tid);
        return openat(rules->proc, root, O_PATH | O_CLOEXEC);
    }
    if (tracee_path_standard(found))
        *resolve = 0;
    return fcntl(rules->proc, F_DUPFD_CLOEXEC, 0);
}

/* Without waiting, which we may not: not for a FIFO's other end. */
static int open_as_we_are(int from, const char *path, const struct opening *opening,
                          uint64_t resolve)
{
    struct how how = {.flags = opening->flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK,
                      .resolve = resolve};
    if (opening->flags & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY)))
        how.mode = opening->mode & 07777;
    long fd = syscall(SYS_openat2, from, path, &how, sizeof how);
    if (fd < 0)
        return -errno;
    if (!(opening->flags & O_NONBLOCK))
        (void)fcntl((int)fd, F_SETFL,
                    (int)(opening->flags & (O_APPEND | O_DIRECT | O_NOATIME)));
    return (int)fd;
}

static int open_as_the_program(const struct rules *rules, pid_t tid,
                               const struct opening *opening)
{
    char path[PATH_MAX + 16];
    uint64_t resolve;
    const struct identity identity = identity_of(rules->plan);
    struct cap_data had[2], none[2];
    cleanup_fd int from =
        start_of(rules, tid, opening->path->found, path, sizeof path, &resolve);
    if (from < 0 || capabilities(false, had) < 0)
        return -errno;
    memcpy(none, had, sizeof none);
    none[0].effective = none[1].effective = 0;
    mode_t mask = umask(umask_of(rules->proc, tid));
    int uid = identity.changes ? setfsuid(identity.uid) : 0;
    int gid = identity.changes ? setfsgid(identity.gid) : 0;
    int fd = identity.capable ? 0 : capabilities(true, none);
    if (fd == 0)
        fd = open_as_we_are(from, path, opening, resolve);
    (void)capabilities(true, had);
    if (identity.changes) {
        (void)setfsgid((gid_t)gid);
        (void)setfsuid((uid_t)uid);
        (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); /* fs.suid_dumpable may have set it */
    }
    (void)umask(mask);
    return fd;
}

void inject(int listener, const struct notice *notice, const struct rules *rules,
            const struct opening *opening)
{
    cleanup_fd int fd = open_as_the_program(rules, (pid_t)notice->pid, opening);
    const struct added_fd added = {
        .id = notice->id,
        .flags = ADDFD_SEND,
        .source = (uint32_t)fd,
        .target_flags = (uint32_t)(opening->flags & O_CLOEXEC),
    };
    if (fd < 0)
        listener_refuse(listener, notice, -fd);
    else if (syscall(SYS_ioctl, listener, NOTIF_ADDFD, &added) < 0)
        listener_refuse(listener, notice, errno); /* EMFILE: it has no number free */
}

int fd_hide(int *fd, int *socket)
{
    int ends[2];
    char byte = 0;
    _Alignas(struct cmsghdr) char ancillary[CMSG_SPACE(sizeof *fd)] = {0};
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = ancillary,
                             .msg_controllen = sizeof ancillary};
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        return -errno;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof *fd);
    memcpy(CMSG_DATA(header), fd, sizeof *fd);
    int error = sendmsg(ends[0], &message, MSG_NOSIGNAL) == 1 ? 0 : -errno;
    close_fd(&ends[0]);
    *socket = ends[1];
    if (error == 0)
        close_fd(fd);
    return error;
}

int fd_show(int *fd, int *socket)
{
    char byte;
    _Alignas(struct cmsghdr) char ancillary[CMSG_SPACE(sizeof *fd)];
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = ancillary,
                             .msg_controllen = sizeof ancillary};
    int error = recvmsg(*socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT) == 1 ? 0 : -errno;
    const struct cmsghdr *header = error ? NULL : CMSG_FIRSTHDR(&message);
    if (header && header->cmsg_type == SCM_RIGHTS)
        memcpy(fd, CMSG_DATA(header), sizeof *fd);
    else if (error == 0)
        error = -EPROTO;
    close_fd(socket);
    return error;
}
