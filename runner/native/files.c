/*
 * Files into a sandbox before a run, and out of it after one. The keeper opens them: it is
 * in the sandbox's namespaces, with its root and its ids, so that no path leads out and
 * nothing is reached that the sandbox could not reach. When it does, nobody else is alive
 * there but init. It makes them as the program's user (setfsuid(2)), whose they are then,
 * on an idmapped mount too, and keeps its capabilities there: a mode of 0 keeps nobody out.
 * What programs have left is hostile all the same: each path is resolved
 * beneath one directory, by openat2(2) (Linux 5.6), through no link and into no other
 * mount, and what is opened is known to be a regular file before it is opened for reading.
 */
#define _GNU_SOURCE
#include "steps.h"
#include "sys.h"

#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/sendfile.h>

#define RESOLVE_PLAIN (RESOLVE_NO_MAGICLINKS_FLAG | RESOLVE_NO_SYMLINKS_FLAG)
#define RESOLVE_INSIDE (RESOLVE_PLAIN | RESOLVE_BENEATH_FLAG | RESOLVE_NO_XDEV_FLAG)

enum { COPY_BYTES = 1 << 30 };

static int open_how(int directory, const char *path, int flags, uint64_t resolve)
{
    /* A link is opened itself by O_PATH; where a directory is wanted, it is ELOOP. */
    int follow = flags & O_DIRECTORY ? 0 : O_NOFOLLOW;
    struct open_how_v0 how = {
        .flags = (uint64_t)(unsigned)(flags | O_CLOEXEC | follow),
        .mode = flags & O_CREAT ? 0600 : 0,
        .resolve = resolve,
    };
    return sys_openat2(directory, path, &how);
}

/* The directory that names are relative to: it may be anywhere, but behind no link. */
static int open_base(const char *path)
{
    return open_how(AT_FDCWD, path, O_PATH | O_DIRECTORY, RESOLVE_PLAIN);
}

/* arg: uid, gid. Be these, for files, until box_files has done. */
int op_file_owner(const struct step *step, struct context *context)
{
    (void)context;
    return file_ids((uid_t)step->arg[0], (gid_t)step->arg[1]);
}

int file_ids(uid_t uid, gid_t gid)
{
    (void)setfsgid(gid); /* they return what was before, and fail by doing nothing */
    (void)setfsuid(uid);
    bool are = (uid_t)setfsuid((uid_t)-1) == uid && (gid_t)setfsgid((gid_t)-1) == gid;
    return are ? 0 : -EPERM;
}

/* Open a directory in another, made for the program if there is nothing. */
static int enter(int directory, const char *name)
{
    int fd = open_how(directory, name, O_RDONLY | O_DIRECTORY, RESOLVE_INSIDE);
    if (fd != -ENOENT)
        return fd;
    if (mkdirat(directory, name, 0700) < 0)
        return -errno;
    fd = open_how(directory, name, O_RDONLY | O_DIRECTORY, RESOLVE_INSIDE);
    int error = fd < 0 ? fd : (int)sys_result(fchmod(fd, 0777)); /* umask */
    if (error < 0)
        close_fd(&fd);
    return error < 0 ? error : fd;
}

/*
 * Open the directory that the last part of `path` is in, relative to `base`, and point
 * *last at that part. Returns the fd or -errno.
 */
static int open_parent(const char *base, const char *path, const char **last)
{
    char name[NAME_MAX + 1];
    int at = open_base(base);
    for (const char *slash; at >= 0 && (slash = strchr(path, '/')); path = slash + 1) {
        size_t length = (size_t)(slash - path);
        if (length > NAME_MAX) {
            close_fd(&at);
            return -ENAMETOOLONG;
        }
        if (length == 0)
            continue;
        memcpy(name, path, length);
        name[length] = 0;
        int next = enter(at, name);
        close_fd(&at);
        at = next;
    }
    *last = path;
    return at;
}

static int write_bytes(int fd, const uint8_t *bytes, size_t size)
{
    while (size > 0) {
        ssize_t written = write(fd, bytes, size);
        if (written < 0)
            return -errno;
        bytes += written;
        size -= (size_t)written;
    }
    return 0;
}

/* All of a regular file; of anything else we might wait for more, deaf to the grader. */
static int write_from(int fd, int source)
{
    struct stat status;
    off_t at = 0; /* the source's own position stays the caller's */
    ssize_t sent;
    if (fstat(source, &status) < 0)
        return -errno;
    if (!S_ISREG(status.st_mode))
        return -EINVAL;
    do
        sent = sendfile(fd, source, &at, COPY_BYTES);
    while (sent > 0);
    return (int)sys_result(sent);
}

/*
 * Put a file there, in the place of one of that name: never into what is there.
 * arg: fd of its content or -1, mode; strings: base, path; data: its content.
 */
int op_file_in(const struct step *step, struct context *context)
{
    const char *last;
    cleanup_fd int parent = open_parent(step->strings[0], step->strings[1], &last);
    if (parent < 0)
        return parent;
    if (unlinkat(parent, last, 0) < 0 && errno != ENOENT)
        return -errno;
    cleanup_fd int fd = open_how(parent, last, O_WRONLY | O_CREAT | O_EXCL, RESOLVE_INSIDE);
    if (fd < 0)
        return fd;
    int error = step->arg[0] < 0 ? write_bytes(fd, step->data, step->length)
                                 : write_from(fd, context->fds[step->arg[0]]);
    return error < 0 ? error : (int)sys_result(fchmod(fd, (mode_t)step->arg[1] & 0777));
}

/* A symbolic link, in the place of one. strings: base, path, target. */
int op_file_link(const struct step *step, struct context *context)
{
    (void)context;
    const char *last;
    cleanup_fd int parent = open_parent(step->strings[0], step->strings[1], &last);
    if (parent < 0)
        return parent;
    if (unlinkat(parent, last, 0) < 0 && errno != ENOENT)
        return -errno;
    return (int)sys_result(symlinkat(step->strings[2], parent, last));
}

/* Remove what is no directory, if it is there. strings: base, path. */
int op_file_remove(const struct step *step, struct context *context)
{
    (void)context;
    const char *path = step->strings[1];
    const char *slash = strrchr(path, '/');
    char name[PATH_MAX];
    size_t length = slash ? (size_t)(slash - path) : 0;
    if (length >= sizeof name)
        return -ENAMETOOLONG;
    memcpy(name, path, length);
    name[length] = 0;
    cleanup_fd int base = open_base(step->strings[0]);
    if (base < 0)
        return base;
    cleanup_fd int parent =
        open_how(base, length ? name : ".", O_PATH | O_DIRECTORY, RESOLVE_INSIDE);
    if (parent < 0)
        return parent == -ENOENT ? 0 : parent;
    if (unlinkat(parent, slash ? slash + 1 : path, 0) < 0 && errno != ENOENT)
        return -errno;
    return 0;
}

/*
 * Open a regular file for reading, into context->opened. What else is there is refused
 * with EINVAL, and its type is the report's status. strings: base, path.
 */
int op_file_out(const struct step *step, struct context *context)
{
    const char *path = step->strings[1];
    struct stat there, opened;
    cleanup_fd int base = open_base(step->strings[0]);
    if (base < 0)
        return base;
    /* O_PATH: nothing happens to a device or a fifo, nor to us. A link is opened itself. */
    cleanup_fd int found = open_how(base, path, O_PATH, RESOLVE_INSIDE);
    if (found < 0)
        return found;
    if (fstat(found, &there) < 0)
        return -errno;
    if (!S_ISREG(there.st_mode)) {
        context->report->status = (int)there.st_mode;
        return -EINVAL;
    }
    cleanup_fd int fd = open_how(base, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, RESOLVE_INSIDE);
    if (fd < 0)
        return fd;
    if (fstat(fd, &opened) < 0)
        return -errno;
    if (opened.st_dev != there.st_dev || opened.st_ino != there.st_ino)
        return -ESTALE; /* somebody is alive who should not be */
    close_fd(&context->opened);
    context->opened = fd;
    fd = -1;
    return 0;
}
