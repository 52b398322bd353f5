/* The targets of mounts: found or made, and never the root itself. */
#pragma once

#include "wire.h"

#include <sys/stat.h>

/*
 * Whether something can be mounted at `path`: it is there, and not a symlink to the
 * root. What is mounted on "/" is seen by nobody, whose root is what lies below.
 * Returns 0 or -errno.
 */
int check_target(const char *path);

/* Is this a symlink itself, opened where none was to be followed? Returns 0 or -ELOOP. */
int refuse_link(int fd);

/* Make what a bind of `source` needs: a directory for a directory, else a file. */
int make_target(const struct stat *source, const char *path, enum target wanted);
