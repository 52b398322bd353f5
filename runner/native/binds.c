/*
 * Binds and attributes by mount(2), which sets those of one mount at a time, and
 * drops what it is not told again; masks.
 *
 * Linux before 5.12, and containers whose filter is older than that, have nothing
 * else. A source is then opened by init as a path, is bound at a place of ours while
 * the host's /proc is there to name it, and moved to its target at last.
 */
#define _GNU_SOURCE
#include "paths.h"
#include "steps.h"
#include "sys.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

/* arg: slot, optional?, follow a link? Opens a path, for `bind`. */
int op_open_path(const struct step *step, struct context *context)
{
    if (!slot_valid(context, step->arg[0]))
        return -EINVAL;
    int fd = open(step->strings[0], O_PATH | O_CLOEXEC | (step->arg[2] ? 0 : O_NOFOLLOW));
    if (fd < 0)
        return errno == ENOENT && step->arg[1] ? 0 : -errno;
    context->places->slots[step->arg[0]] = fd;
    return step->arg[2] ? 0 : refuse_link(fd);
}

static unsigned long flag_of(const char *option)
{
    static const struct {
        const char *option;
        unsigned long flag;
    } flags[] = {{"ro", MS_RDONLY},
                 {"nosuid", MS_NOSUID},
                 {"nodev", MS_NODEV},
                 {"noexec", MS_NOEXEC},
                 {"nosymfollow", 256 /* MS_NOSYMFOLLOW */}};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        if (strcmp(option, flags[i].option) == 0)
            return flags[i].flag;
    return 0; /* those about atime stay, if none of them is given: path_mount in fs/namespace.c
               */
}

/* Undo the \040 for a space that mountinfo writes. */
static void unescape(char *text)
{
    char *to = text;
    for (const char *from = text; *from; to++) {
        unsigned octal;
        if (*from == '\\' && sscanf(from + 1, "%3o", &octal) == 1) {
            *to = (char)octal;
            from += 4;
        } else {
            *to = *from++;
        }
    }
    *to = '\0';
}

/*
 * Add attributes to the mount of this line of mountinfo, if it is at `path`, or below
 * it and `recursive`. What it has is given again: a user namespace may not drop it, and
 * nobody should. Returns 1 if it is, 0 if not, or -errno.
 */
static int remount_line(char *line, const char *path, unsigned long attributes, bool recursive)
{
    char *where = NULL, *options = NULL, *rest = line;
    for (int i = 0; i <= 5; i++) {
        char *word = strsep(&rest, " ");
        if (i == 4)
            where = word;
        if (i == 5)
            options = word;
    }
    if (!where || !options)
        return -EIO;
    unescape(where);
    size_t length = strcmp(path, "/") == 0 ? 0 : strlen(path);
    bool itself = strcmp(where, path) == 0;
    bool below = strncmp(where, path, length) == 0 && where[length] == '/';
    if (!itself && !(recursive && below))
        return 0;
    unsigned long flags = attributes;
    for (char *option; (option = strsep(&options, ","));)
        flags |= flag_of(option);
    if (mount(NULL, where, NULL, MS_REMOUNT | MS_BIND | flags, NULL) == 0)
        return 1;
    /* Below a directory that even we may not search: the program, with less rights, cannot. */
    return errno == EACCES && !itself ? 0 : -errno;
}

/* All of it before anything is changed: a mount below another at the same place is listed too.
 */
static char *read_mountinfo(int host_proc)
{
    cleanup_fd int fd = host_proc >= 0
                            ? openat(host_proc, "self/mountinfo", O_RDONLY | O_CLOEXEC)
                            : open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
    size_t size = 0, room = 1 << 16;
    char *text = malloc(room);
    while (fd >= 0 && text) {
        ssize_t got = read(fd, text + size, room - size - 1);
        if (got < 0)
            break;
        size += (size_t)got;
        text[size] = '\0';
        if (got == 0)
            return text;
        if (room - size < room / 2) {
            char *more = realloc(text, room *= 2);
            if (!more)
                break;
            text = more;
        }
    }
    free(text);
    return NULL;
}

static int remount_each(const char *path, unsigned long attributes, bool recursive,
                        int host_proc)
{
    char real[PATH_MAX];
    if (!realpath(path, real))
        return -errno;
    char *text = read_mountinfo(host_proc);
    if (!text)
        return -EIO;
    int found = 0, result = 0;
    char *rest = text;
    for (char *line; result >= 0 && (line = strsep(&rest, "\n")) && *line; found += result)
        result = remount_line(line, real, attributes, recursive);
    free(text);
    if (result < 0)
        return result;
    return found ? 0 : -EINVAL; /* not a mount point, as mount_setattr says it */
}

/* Add attributes to the mount at `path`, which drops none; `flags` are enum bind_flags. */
static int add_attributes(const char *path, int64_t attributes, int64_t flags,
                          const struct context *context)
{
    if (attributes & ~(int64_t)MOUNT_ATTR_ALL_FLAGS)
        return -EINVAL;
    if (flags & BIND_OLD)
        return remount_each(path, (unsigned long)attributes, flags & BIND_RECURSIVE,
                            context->host_proc);
    struct mount_attr_v0 wanted = {.attr_set = (uint64_t)attributes};
    return (int)sys_result(syscall(SYS_mount_setattr, AT_FDCWD, path,
                                   flags & BIND_RECURSIVE ? AT_RECURSIVE_FLAG : 0u, &wanted,
                                   sizeof wanted));
}

/* arg: attributes, enum bind_flags */
int op_remount(const struct step *step, struct context *context)
{
    return add_attributes(step->strings[0], step->arg[0], step->arg[1], context);
}

static int bind_path(const struct step *step, const char *source, struct context *context)
{
    const char *target = step->strings[1];
    struct stat status;
    int64_t flags = step->arg[2];
    if (stat(source, &status) < 0)
        return errno == ENOENT && flags & BIND_OPTIONAL ? 0 : -errno;
    int result = make_target(&status, target, (enum target)step->arg[3]);
    if (result < 0)
        return result;
    if (mount(source, target, NULL, flags & BIND_RECURSIVE ? MS_BIND | MS_REC : MS_BIND, NULL) <
        0)
        return -errno;
    return add_attributes(target, step->arg[1], flags, context);
}

/*
 * arg: slot, attributes, enum bind_flags, what may be at the target; strings: source,
 * target. The source is that of the slot, if it is not -1; an empty one was optional.
 */
int op_bind(const struct step *step, struct context *context)
{
    char path[32];
    if (step->arg[0] == -1)
        return bind_path(step, step->strings[0], context);
    if (!slot_valid(context, step->arg[0]))
        return -EINVAL;
    int *fd = &context->places->slots[step->arg[0]];
    if (*fd < 0)
        return 0;
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", *fd);
    int result = bind_path(step, path, context);
    close_fd(fd);
    return result;
}

/* arg: optional?, what may be at the target; strings: source, a mount; target */
int op_move_path(const struct step *step, struct context *context)
{
    struct stat source;
    (void)context;
    if (stat(step->strings[0], &source) < 0)
        return errno == ENOENT && step->arg[0] ? 0 : -errno;
    int result = make_target(&source, step->strings[1], (enum target)step->arg[1]);
    if (result < 0)
        return result;
    return (int)sys_result(mount(step->strings[0], step->strings[1], NULL, MS_MOVE, NULL));
}

/* strings: target, an empty file, an empty directory. What is not there needs no mask. */
int op_mask(const struct step *step, struct context *context)
{
    const char *target = step->strings[0];
    struct stat status;
    (void)context;
    if (stat(target, &status) < 0)
        return errno == ENOENT || errno == ENOTDIR ? 0 : -errno;
    int result = check_target(target);
    if (result < 0)
        return result;
    const char *empty = S_ISDIR(status.st_mode) ? step->strings[2] : step->strings[1];
    return (int)sys_result(mount(empty, target, NULL, MS_BIND, NULL));
}
