/*
 * Paths of another process, looked up as it would: from its root, its directory or one of its
 * fds, symlink by symlink. The keeper opens each component itself (O_PATH, which follows
 * nothing), so what it finds was there at that moment; the process may change it a moment
 * later (docs/supervision.md).
 *
 * /proc is the exception: its links mean what the reader is, so `self` is rewritten, and
 * links below a process's directory are not followed but named.
 */
#define _GNU_SOURCE
#include "tracee.h"

#include "sys.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/uio.h>

enum { LINKS_MAX = 40, PAGE = 4096 }; /* MAXSYMLINKS of the kernel */

/* Where process_vm_readv is refused or missing: word by word, as the tracer. */
static int peek(pid_t tid, uint64_t address, char *bytes, size_t size)
{
    for (size_t at = 0; at < size; at += sizeof(long)) {
        errno = 0;
        long word = ptrace(PTRACE_PEEKDATA, tid, (void *)(uintptr_t)(address + at), NULL);
        if (errno)
            return -errno == -EIO ? -EFAULT : -errno;
        size_t some = size - at < sizeof word ? size - at : sizeof word;
        memcpy(bytes + at, &word, some);
    }
    return 0;
}

int tracee_read(pid_t tid, uint64_t address, void *bytes, size_t size)
{
    struct iovec here = {bytes, size}, there = {(void *)(uintptr_t)address, size};
    ssize_t got = process_vm_readv(tid, &here, 1, &there, 1, 0);
    if (got == (ssize_t)size)
        return 0;
    if (got >= 0 || errno == EFAULT)
        return -EFAULT;
    return errno == ENOSYS || errno == EPERM ? peek(tid, address, bytes, size) : -errno;
}

/* Page by page: a text may end just before memory that is not there. */
int tracee_text(pid_t tid, uint64_t address, char *text, size_t size)
{
    for (size_t at = 0; at < size;) {
        size_t some = PAGE - (address + at) % PAGE;
        if (some > size - at)
            some = size - at;
        int error = tracee_read(tid, address + at, text + at, some);
        if (error < 0)
            return error;
        if (memchr(text + at, 0, some))
            return 0;
        at += some;
    }
    return -ENAMETOOLONG;
}

/* A look-up under way: `at` is the directory that `found` names; `rest` is still to come. */
struct walk {
    int proc;
    pid_t tid;
    int at;
    int links;
    bool follow;
    char rest[2 * PATH_MAX];
    char *found; /* PATH_MAX; "" is the root */
};

static int open_of(const struct walk *walk, const char *name)
{
    char path[64];
    (void)snprintf(path, sizeof path, "%d/%s", (int)walk->tid, name);
    int fd = openat(walk->proc, path, O_PATH | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int go_to(struct walk *walk, int fd)
{
    if (fd < 0)
        return fd;
    close_fd(&walk->at);
    walk->at = fd;
    return 0;
}

static int append(struct walk *walk, const char *name)
{
    size_t have = strlen(walk->found), length = strlen(name);
    if (have + 1 + length >= PATH_MAX)
        return -ENAMETOOLONG;
    walk->found[have] = '/';
    memcpy(walk->found + have + 1, name, length);
    walk->found[have + 1 + length] = 0;
    return 0;
}

/* Begin where a relative path does. */
static int begin_at_fd(struct walk *walk, int directory)
{
    char name[32] = "cwd", path[64];
    if (directory != AT_FDCWD)
        (void)snprintf(name, sizeof name, "fd/%d", directory);
    (void)snprintf(path, sizeof path, "%d/%s", (int)walk->tid, name);
    ssize_t length = readlinkat(walk->proc, path, walk->found, PATH_MAX - 1);
    if (length < 0)
        return errno == ENOENT ? -EBADF : -errno;
    walk->found[length] = 0;
    const char deleted[] = " (deleted)";
    size_t tail = sizeof deleted - 1;
    if ((size_t)length > tail && strcmp(walk->found + length - tail, deleted) == 0)
        return -ENOENT;
    if (walk->found[0] != '/')
        return -EBADF; /* a pipe, a socket, a directory outside the root */
    if (walk->found[1] == 0)
        walk->found[0] = 0;
    return go_to(walk, open_of(walk, name));
}

static int begin_at_root(struct walk *walk)
{
    walk->found[0] = 0;
    return go_to(walk, open_of(walk, "root"));
}

static int go_up(struct walk *walk)
{
    char *slash = strrchr(walk->found, '/');
    if (!slash)
        return 0; /* `..` of the root is the root */
    *slash = 0;
    if (walk->found[0] == 0)
        return begin_at_root(walk);
    int fd = openat(walk->at, "..", O_PATH | O_CLOEXEC);
    return go_to(walk, fd < 0 ? -errno : fd);
}

/* The rest as it stands, which nobody follows: it does not exist, or is /proc's. */
static int take_rest(struct walk *walk)
{
    char *next = walk->rest;
    for (char *name; (name = strsep(&next, "/"));) {
        if (strcmp(name, "..") == 0)
            return -ENOENT;
        if (*name && strcmp(name, ".") != 0 && append(walk, name) < 0)
            return -ENAMETOOLONG;
    }
    walk->rest[0] = 0;
    return 0;
}

static int take_all(struct walk *walk, const char *name)
{
    int error = append(walk, name);
    return error < 0 ? error : take_rest(walk);
}

long tracee_number(int proc, pid_t tid, bool thread)
{
    char path[64], text[2048];
    (void)snprintf(path, sizeof path, "%d/status", (int)tid);
    cleanup_fd int fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (got <= 0)
        return -1;
    text[got] = 0;
    const char *line = strstr(text, thread ? "\nNSpid:" : "\nNStgid:");
    const char *end = line ? strchr(line + 1, '\n') : NULL;
    if (!end)
        return -1;
    const char *tab = end;
    while (tab > line && *tab != '\t')
        tab--;
    return strtol(tab + 1, NULL, 10);
}

/* Is a name in /proc its own directory there, or another process's? */
enum process { PROCESS_NONE, PROCESS_SELF, PROCESS_OTHER };

static enum process process_of(const struct walk *walk, const char *name)
{
    if (strcmp(walk->found, "/proc") != 0)
        return PROCESS_NONE;
    if (strcmp(name, "self") == 0 || strcmp(name, "thread-self") == 0)
        return PROCESS_SELF;
    if (!isdigit((unsigned char)name[0]))
        return PROCESS_NONE;
    return strtol(name, NULL, 10) == tracee_number(walk->proc, walk->tid, false)
               ? PROCESS_SELF
               : PROCESS_OTHER;
}

static int follow_link(struct walk *walk, int link)
{
    char target[2 * PATH_MAX];
    ssize_t length = readlinkat(link, "", target, PATH_MAX - 1);
    if (length <= 0)
        return length < 0 ? -errno : -ENOENT;
    if (++walk->links > LINKS_MAX)
        return -ELOOP;
    size_t tail = strlen(walk->rest);
    if ((size_t)length + 1 + tail >= sizeof walk->rest)
        return -ENAMETOOLONG;
    target[length] = tail ? '/' : 0;
    memcpy(target + length + (tail ? 1 : 0), walk->rest, tail + 1);
    memcpy(walk->rest, target, (size_t)length + 1 + tail + 1);
    return target[0] == '/' ? begin_at_root(walk) : 0;
}

/* Take a name that is neither `.` nor `..`. `end`: nothing follows it, not even a slash. */
static int enter(struct walk *walk, const char *name, bool end)
{
    switch (process_of(walk, name)) {
    case PROCESS_OTHER: /* what is below it is not looked at */
        return take_all(walk, name);
    case PROCESS_SELF: {
        int error = append(walk, isdigit((unsigned char)name[0]) ? "self" : name);
        return error < 0 ? error : go_to(walk, open_of(walk, "."));
    }
    case PROCESS_NONE:
        break;
    }
    struct stat status;
    cleanup_fd int fd = openat(walk->at, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    bool link = fd >= 0 && fstat(fd, &status) == 0 && S_ISLNK(status.st_mode);
    if (fd < 0 || (link && strncmp(walk->found, "/proc/", 6) == 0))
        return take_all(walk, name);
    if (link && (!end || walk->follow))
        return follow_link(walk, fd);
    int error = append(walk, name);
    if (error < 0)
        return error;
    int entered = fd;
    fd = -1;
    return go_to(walk, entered);
}

/* Take the next component. */
static int take_step(struct walk *walk)
{
    char name[NAME_MAX + 1];
    const char *start = walk->rest + strspn(walk->rest, "/");
    size_t length = strcspn(start, "/");
    if (length > NAME_MAX)
        return -ENAMETOOLONG;
    memcpy(name, start, length);
    name[length] = 0;
    bool end = start[length] == 0;
    const char *rest = start + length + strspn(start + length, "/");
    memmove(walk->rest, rest, strlen(rest) + 1);
    if (length == 0 || strcmp(name, ".") == 0)
        return 0;
    return strcmp(name, "..") == 0 ? go_up(walk) : enter(walk, name, end);
}

/* Append a path as it is written. Returns false for `..`, which may lead back from a symlink.
 */
static bool append_written(struct walk *walk, const char *name)
{
    while (*name) {
        size_t length = strcspn(name, "/");
        char part[NAME_MAX + 1];
        if (length > NAME_MAX || (length == 2 && memcmp(name, "..", 2) == 0))
            return false;
        memcpy(part, name, length);
        part[length] = 0;
        if (length && strcmp(part, ".") != 0 && append(walk, part) < 0)
            return false;
        name += length;
        name += strspn(name, "/");
    }
    return true;
}

/*
 * Most paths are of what exists, and go through no symlink: the kernel says so at once
 * (openat2, Linux 5.6). Not in /proc, whose symlinks are ours to read.
 */
static bool is_plain(struct walk *walk, const char *name)
{
    const struct open_how_v0 how = {.flags = O_PATH | O_CLOEXEC,
                                    .resolve = RESOLVE_NO_SYMLINKS_FLAG};
    if (!append_written(walk, name) || strncmp(walk->found, "/proc", 5) == 0)
        return false;
    cleanup_fd int root = open_of(walk, "root");
    cleanup_fd int fd = sys_openat2(root, walk->found[0] ? walk->found + 1 : ".", &how);
    return fd >= 0;
}

/* Component by component, from where `found` is. */
static int look_up(struct walk *walk, const char *name)
{
    int error = name[0] == '/' ? begin_at_root(walk) : 0;
    (void)snprintf(walk->rest, sizeof walk->rest, "%s", name);
    while (error == 0 && walk->rest[0])
        error = take_step(walk);
    return error;
}

int tracee_find(int proc, pid_t tid, struct tracee_path *path)
{
    struct walk walk = {
        .proc = proc, .tid = tid, .at = -1, .follow = path->follow, .found = path->found};
    path->found[0] = 0;
    int error = path->name[0] == '/' ? 0 : begin_at_fd(&walk, path->directory);
    size_t start = strlen(path->found);
    if (error == 0 && !is_plain(&walk, path->name)) {
        path->found[start] = 0;
        error = look_up(&walk, path->name);
    }
    close_fd(&walk.at);
    if (error == 0 && path->found[0] == 0)
        memcpy(path->found, "/", 2);
    return error;
}

bool tracee_path_standard(const char *found)
{
    const char *stream = "/proc/self/fd/";
    size_t length = strlen(stream);
    return strncmp(found, stream, length) == 0 && strchr("012", found[length]) &&
           found[length] && found[length + 1] == 0;
}

/* A field of an fd's fdinfo (proc_pid_fdinfo(5)). `ino` is Linux 5.14. */
static bool field_of(const char *text, const char *name, int base, uint64_t *value)
{
    const char *at = strstr(text, name);
    if (at)
        *value = strtoull(at + strlen(name), NULL, base);
    return at;
}

/* What of struct statx (statx(2)) tells which file it is, which a libc may not have. */
struct which {
    uint64_t mask, unused[3], inode, more[13], mount, rest[13];
};

_Static_assert(sizeof(struct which) == 256, "struct statx");

/* Has the fd that was described been put in the place of another, or that of it, meanwhile? */
static bool is_described(int fd, const char *text)
{
    const unsigned inode_and_mount = 0x1100;
    struct which which;
    uint64_t inode, mount;
    if (!field_of(text, "\nino:", 10, &inode))
        return true;
    return field_of(text, "\nmnt_id:", 10, &mount) &&
           syscall(SYS_statx, fd, "", AT_EMPTY_PATH, inode_and_mount, &which) == 0 &&
           which.inode == inode && which.mount == mount;
}

int tracee_stream(int proc, pid_t tid, const char *found, unsigned access)
{
    static const unsigned of_mode[] = {ACCESS_READ, ACCESS_WRITE, ACCESS_READ | ACCESS_WRITE,
                                       ACCESS_NONE};
    char path[64], text[512];
    char stream = found[strlen(found) - 1];
    uint64_t flags;
    (void)snprintf(path, sizeof path, "%d/fd/%c", (int)tid, stream);
    int fd = openat(proc, path, O_PATH | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? -EBADF : -errno;
    (void)snprintf(path, sizeof path, "%d/fdinfo/%c", (int)tid, stream);
    cleanup_fd int info = openat(proc, path, O_RDONLY | O_CLOEXEC);
    ssize_t got = info < 0 ? -1 : read(info, text, sizeof text - 1);
    text[got > 0 ? got : 0] = 0;
    if (!field_of(text, "flags:", 8, &flags) || !is_described(fd, text) ||
        access & ~(flags & O_PATH ? ACCESS_NONE : of_mode[flags & 3]))
        close_fd(&fd);
    return fd < 0 ? -EACCES : fd;
}

bool tracee_path_dangerous(const char *found)
{
    static const char *const names[] = {"fd",   "fdinfo", "root",      "cwd",
                                        "task", "ns",     "map_files", "mem"};
    if (strncmp(found, "/proc/", 6) != 0)
        return false;
    const char *process = found + 6;
    if (isdigit((unsigned char)*process))
        return true; /* another's: its own is `self` */
    const char *slash = strchr(process, '/');
    size_t length = slash ? (size_t)(slash - process) : 0;
    if (!slash ||
        (strncmp(process, "self", length) != 0 && strncmp(process, "thread-self", length) != 0))
        return false;
    const char *name = slash + 1;
    size_t size = strcspn(name, "/");
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        if (strlen(names[i]) == size && strncmp(name, names[i], size) == 0)
            return true;
    return false;
}
