/*
 * Names in the file system: directories, nodes, files, symbolic links.
 *
 * What lies in a directory of the caller's is never made by us: there the plan asks
 * for what exists already. What is made lies in file systems of our own.
 */
#define _GNU_SOURCE
#include "paths.h"

#include "steps.h"
#include "sys.h"

#include <fcntl.h>
#include <limits.h>
#include <string.h>

int check_target(const char *path)
{
    struct stat target, root;
    if (stat(path, &target) < 0 || stat("/", &root) < 0)
        return -errno;
    return target.st_dev == root.st_dev && target.st_ino == root.st_ino ? -ELOOP : 0;
}

int make_target(const struct stat *source, const char *path, enum target wanted)
{
    long made = 0;
    if (wanted != TARGET_EXISTS)
        made = S_ISDIR(source->st_mode) ? mkdir(path, 0755) : mknod(path, S_IFREG | 0644, 0);
    if (made < 0 && errno != EEXIST)
        return -errno;
    return check_target(path);
}

/* arg: mode, what may be there (enum target), will something be mounted there? */
int op_mkdir(const struct step *step, struct context *context)
{
    (void)context;
    const char *path = step->strings[0];
    struct stat there;
    if (step->arg[1] == TARGET_EXISTS)
        return step->arg[2] ? check_target(path) : (int)sys_result(stat(path, &there));
    if (mkdir(path, (mode_t)step->arg[0]) == 0)
        return (int)sys_result(chmod(path, (mode_t)step->arg[0])); /* umask */
    if (errno != EEXIST || step->arg[1] == TARGET_NEW)
        return -errno;
    return step->arg[2] ? check_target(path) : 0;
}

/* arg: mode and type, device */
int op_mknod(const struct step *step, struct context *context)
{
    (void)context;
    const char *path = step->strings[0];
    if (mknod(path, (mode_t)step->arg[0], (dev_t)step->arg[1]) < 0)
        return -errno;
    return (int)sys_result(chmod(path, (mode_t)step->arg[0] & 07777)); /* umask */
}

int op_rmdir(const struct step *step, struct context *context)
{
    (void)context;
    return (int)sys_result(rmdir(step->strings[0]));
}

/* arg: what may be there; TARGET_EXISTS: this very link */
int op_symlink(const struct step *step, struct context *context)
{
    (void)context;
    char text[PATH_MAX];
    if (step->arg[0] != TARGET_EXISTS)
        return (int)sys_result(symlink(step->strings[0], step->strings[1]));
    ssize_t length = readlink(step->strings[1], text, sizeof text);
    if (length < 0)
        return -errno;
    bool same = strlen(step->strings[0]) == (size_t)length &&
                memcmp(text, step->strings[0], (size_t)length) == 0;
    return same ? 0 : -EEXIST;
}

int refuse_link(int fd)
{
    struct stat status;
    if (fstat(fd, &status) < 0)
        return -errno;
    return S_ISLNK(status.st_mode) ? -ELOOP : 0;
}

/* arg: mode. Creates the file; O_EXCL: never writes through what is there already. */
int op_write_file(const struct step *step, struct context *context)
{
    (void)context;
    cleanup_fd int fd =
        open(step->strings[0], O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    size_t done = 0;
    while (done < step->length) {
        ssize_t written = write(fd, step->data + done, step->length - done);
        if (written < 0)
            return -errno;
        done += (size_t)written;
    }
    return (int)sys_result(fchmod(fd, (mode_t)step->arg[0]));
}
