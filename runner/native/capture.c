/*
 * Pipes between the program and regular files (memfds) of the grader. The first
 * `keep` bytes are kept and the rest is read and dropped, so the program is
 * neither stopped nor killed by a cap. The sink is a regular file, so writing to
 * it never waits.
 */
#define _GNU_SOURCE
#include "capture.h"

#include "sys.h"

#include <fcntl.h>
#include <sys/stat.h>

enum { CHUNK = 64 * 1024 };

int capture_open(struct capture *capture, const struct frame *frame, int ends[2])
{
    const struct wire_watch *watch = &frame->request.watch;
    for (int i = 0; i < 2; i++)
        capture->stream[i] = (struct stream){.source = -1, .sink = -1, .seen = -1};
    for (int i = 0; i < 2; i++) {
        if (watch->sink[i] < 0)
            continue;
        int fds[2];
        if (pipe2(fds, O_CLOEXEC) < 0)
            return -errno;
        ends[i] = fds[1];
        capture->stream[i] = (struct stream){
            .source = fds[0],
            .sink = frame->fds[watch->sink[i]],
            .keep = watch->keep_bytes[i],
            .seen = 0,
        };
        /*
         * Only our end does not block: the program's is as any pipe. Its inode is ours and
         * 0600; /dev/stdout opens it anew, as the program's user.
         */
        if (fcntl(fds[0], F_SETFL, O_NONBLOCK) < 0 || fchmod(fds[1], 0622) < 0)
            return -errno;
    }
    return 0;
}

static int write_all(int fd, const char *bytes, size_t size)
{
    while (size > 0) {
        ssize_t written = write(fd, bytes, size);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return -errno;
        bytes += written;
        size -= (size_t)written;
    }
    return 0;
}

int capture_drain(struct stream *stream)
{
    static char chunk[CHUNK];
    /* Bounded, so that a flood does not keep us from looking at the clock. */
    for (int turn = 0; turn < 16 && stream->source >= 0; turn++) {
        ssize_t got = read(stream->source, chunk, sizeof chunk);
        if (got < 0)
            return errno == EAGAIN || errno == EINTR ? 0 : -errno;
        if (got == 0) {
            close_fd(&stream->source);
            return 0;
        }
        int64_t room = stream->keep - stream->seen;
        stream->seen += got;
        if (room <= 0)
            continue;
        int error = write_all(stream->sink, chunk, (size_t)(got < room ? got : room));
        if (error < 0)
            return error;
    }
    return 0;
}

int capture_finish(struct stream *stream)
{
    const int64_t most = stream->seen + fcntl(stream->source, F_GETPIPE_SZ);
    int64_t before;
    int error;
    do {
        before = stream->seen;
        error = capture_drain(stream);
    } while (error == 0 && stream->seen != before && stream->seen < most);
    return error;
}

void capture_close(struct capture *capture)
{
    for (int i = 0; i < 2; i++)
        close_fd(&capture->stream[i].source);
}
