/* What a supervised process means by its arguments: texts in its memory, paths in its view. */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* For what an fd is used. */
enum { ACCESS_NONE, ACCESS_READ = 1, ACCESS_WRITE = 2 };

/* Read `size` bytes of another process. Returns 0 or -errno: EFAULT where it has none. */
int tracee_read(pid_t tid, uint64_t address, void *bytes, size_t size);

/* Read a text with its NUL. Returns 0 or -errno: ENAMETOOLONG as the kernel would say. */
int tracee_text(pid_t tid, uint64_t address, char *text, size_t size);

/* A path in a process's view, before and after it was looked up. */
struct tracee_path {
    int directory; /* fd in the process, or AT_FDCWD */
    bool follow;   /* a symlink at the end */
    char name[PATH_MAX];
    char found[PATH_MAX]; /* absolute, without symlinks; below its own directory of /proc: self
                           */
};

/*
 * Look up path->name as the process would. `proc` is the /proc in which `tid` is its number.
 * What does not exist is found where it would be made. Returns 0, or -errno: that with which
 * the call fails. EBADF: no path leads to what it names, such as a pipe given by fd.
 */
int tracee_find(int proc, pid_t tid, struct tracee_path *path);

/* Its number, or its process's, in its innermost namespace, as /proc of the sandbox shows it.
 */
long tracee_number(int proc, pid_t tid, bool thread);

/* Is it one of the standard streams, by its name in /proc? */
bool tracee_path_standard(const char *found);

/*
 * What such a stream is, as an O_PATH fd, if its own fd may be used as `access` says
 * (ACCESS_*); else -EACCES: opening it anew gives no right that the fd has not. -EBADF: it is
 * closed.
 */
int tracee_stream(int proc, pid_t tid, const char *found, unsigned access);

/* Is this a path of /proc that leads to other processes, to fds, or out of the root? */
bool tracee_path_dangerous(const char *found);
