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
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#define ADDFD_SEND 2u

struct added_fd {
    uint64_t id;
    uint32_t flags, source, target, target_flags;
};

#define NOTIF_ADDFD _IOW('!', 3, struct added_fd)

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

/* From where, and by which path, to open what was found. */
struct start {
    int from, stream; /* the fd that `path` is relative to; or which it names */
    uint64_t resolve;
    char path[PATH_MAX + 64];
};

static void start_close(struct start *start)
{
    close_fd(&start->from);
    close_fd(&start->stream);
}

/*
 * /proc/self is the program's, in the sandbox's own /proc, which may be read-only. Its standard
 * streams are opened through links of our own, as their fds may have become others' since they
 * were judged.
 */
static int start_at(struct start *start, const struct rules *rules, pid_t tid,
                    const struct opening *opening)
{
    const char *self = "/proc/self/", *thread = "/proc/thread-self/";
    const char *found = opening->path->found;
    const size_t size = sizeof start->path;
    const long process = tracee_number(rules->proc, tid, false);
    char root[64];
    if (tracee_path_standard(found)) {
        start->stream = tracee_stream(rules->proc, tid, found, opening_access(opening->flags));
        if (start->stream < 0)
            return start->stream;
        (void)snprintf(start->path, size, "self/fd/%d", start->stream);
        start->resolve = 0;
        start->from = fcntl(rules->proc, F_DUPFD_CLOEXEC, 0);
        return start->from < 0 ? -errno : 0;
    }
    if (strncmp(found, self, strlen(self)) == 0)
        (void)snprintf(start->path, size, "proc/%ld/%s", process, found + strlen(self));
    else if (strncmp(found, thread, strlen(thread)) == 0)
        (void)snprintf(start->path, size, "proc/%ld/task/%ld/%s", process,
                       tracee_number(rules->proc, tid, true), found + strlen(thread));
    else
        (void)snprintf(start->path, size, "%s", found[1] ? found + 1 : ".");
    (void)snprintf(root, sizeof root, "%d/root", (int)tid);
    start->from = openat(rules->proc, root, O_PATH | O_CLOEXEC);
    return start->from < 0 ? -errno : 0;
}

/* Without waiting, which we may not: not for a FIFO's other end. */
static int open_as_we_are(const struct start *start, const struct opening *opening)
{
    struct open_how_v0 how = {.flags = opening->flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK,
                              .resolve = start->resolve};
    if (opening->flags & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY)))
        how.mode = opening->mode & 07777;
    int fd = sys_openat2(start->from, start->path, &how);
    if (fd >= 0 && !(opening->flags & O_NONBLOCK))
        (void)fcntl(fd, F_SETFL, (int)(opening->flags & (O_APPEND | O_DIRECT | O_NOATIME)));
    return fd;
}

static int open_as_the_program(const struct start *start, const struct rules *rules, pid_t tid,
                               const struct opening *opening)
{
    const struct identity identity = identity_of(rules->plan);
    struct cap_data had[2], none[2];
    int fd = capabilities(false, had);
    if (fd < 0)
        return fd;
    memcpy(none, had, sizeof none);
    none[0].effective = none[1].effective = 0;
    bool makes = opening->flags & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY));
    mode_t mask = umask(makes ? umask_of(rules->proc, tid) : 077);
    if (identity.changes)
        fd = file_ids(identity.uid, identity.gid);
    if (fd == 0 && !identity.capable)
        fd = capabilities(true, none);
    if (fd == 0)
        fd = open_as_we_are(start, opening);
    (void)capabilities(true, had);
    if (identity.changes) {
        (void)file_ids(geteuid(), getegid());     /* its own, so that it is always allowed */
        (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); /* fs.suid_dumpable may have set it */
    }
    (void)umask(mask);
    return fd;
}

/*
 * Of a caller that has died the number may be another process's by now, with another root:
 * nothing is made or cut there. What was taken of it while its call still waits is its own.
 */
static int open_for(int listener, const struct notice *notice, const struct rules *rules,
                    const struct opening *opening)
{
    pid_t tid = (pid_t)notice->pid;
    struct start start = {.from = -1, .stream = -1, .resolve = RESOLVE_NO_SYMLINKS_FLAG};
    int fd = start_at(&start, rules, tid, opening);
    if (fd == 0 && !listener_waits(listener, notice))
        fd = -ESRCH; /* which nobody hears */
    if (fd == 0)
        fd = open_as_the_program(&start, rules, tid, opening);
    start_close(&start);
    return fd;
}

void inject(int listener, const struct notice *notice, const struct rules *rules,
            const struct opening *opening)
{
    cleanup_fd int fd = open_for(listener, notice, rules, opening);
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
