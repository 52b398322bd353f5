/* Files that the keeper opens for a call that waits for its listener. */
#pragma once

#include "decide.h"
#include "listener.h"

/* Answer an open that was allowed: with the fd, or with the errno of opening it. */
void inject(int listener, const struct notice *notice, const struct rules *rules,
            const struct opening *opening);

/* Put an fd where no path leads to it, into a socket, and take it out again. Or -errno. */
int fd_hide(int *fd, int *socket);
int fd_show(int *fd, int *socket);
