/*
 * Capture: the first `keep` bytes reach the sink, all are counted, and the
 * writer is never held up. The pipe and the sink are real ones.
 */
#define _GNU_SOURCE
#include "capture.h"
#include "sys.h"

#include "tap.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

enum { TURN_BYTES = 16 * 64 * 1024 }; /* capture_drain moves at most so much */

/* A capture of stdout alone into `sink`, and the program's end of its pipe. */
static int open_one(struct capture *capture, int sink, int64_t keep)
{
    static struct frame frame;
    frame.fds[0] = sink;
    frame.fd_count = 1;
    frame.request.watch = (struct wire_watch){.keep_bytes = {keep, 0}, .sink = {0, -1}};
    int ends[2] = {-1, -1};
    if (capture_open(capture, &frame, ends) < 0 || ends[0] < 0 || ends[1] != -1)
        bail_out("capture_open");
    return ends[0];
}

static int memfd(void)
{
    int fd = memfd_create("sink", MFD_CLOEXEC);
    if (fd < 0)
        bail_out("memfd_create");
    return fd;
}

static void put(int end, const void *bytes, size_t size)
{
    if (write(end, bytes, size) != (ssize_t)size)
        bail_out("write of %zu bytes", size);
}

/* Does the sink hold the first `size` of these bytes, and no more? */
static bool holds(int sink, const void *bytes, size_t size)
{
    struct stat status;
    static char kept[1 << 16];
    return fstat(sink, &status) == 0 && status.st_size == (off_t)size &&
           pread(sink, kept, sizeof kept, 0) == (ssize_t)size && memcmp(kept, bytes, size) == 0;
}

static void test_bounds(void)
{
    static const char text[] = "0123456789";
    static const struct {
        int64_t keep;
        size_t size;
    } cases[] = {{0, 0},  {0, 1},   {0, 10},  {1, 10},
                 {9, 10}, {10, 10}, {11, 10}, {INT64_MAX, 10}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct capture capture;
        int sink = memfd(), end = open_one(&capture, sink, cases[i].keep);
        put(end, text, cases[i].size);
        (void)close(end);
        int error = capture_drain(&capture.stream[0]);
        size_t wanted = cases[i].keep < 10 ? (size_t)cases[i].keep : 10;
        if (wanted > cases[i].size)
            wanted = cases[i].size;
        check(error == 0 && capture.stream[0].seen == (int64_t)cases[i].size &&
                  capture.stream[0].source == -1 && holds(sink, text, wanted),
              "bounds: of %zu bytes and keep %lld, %zu are kept", cases[i].size,
              (long long)cases[i].keep, wanted);
        capture_close(&capture);
        (void)close(sink);
    }
}

/* The cap falls into, between and behind pieces that arrive one by one. */
static void test_pieces(void)
{
    static const char text[] = "abcdefghij";
    bool right = true;
    for (int64_t keep = 0; keep <= 11; keep++)
        for (size_t piece = 1; piece <= 10; piece++) {
            struct capture capture;
            int sink = memfd(), end = open_one(&capture, sink, keep);
            for (size_t at = 0; at < 10; at += piece) {
                put(end, text + at, at + piece <= 10 ? piece : 10 - at);
                right = right && capture_drain(&capture.stream[0]) == 0;
            }
            right = right && capture.stream[0].seen == 10 && capture.stream[0].source >= 0 &&
                    holds(sink, text, keep < 10 ? (size_t)keep : 10);
            (void)close(end);
            capture_close(&capture);
            (void)close(sink);
        }
    check(right, "pieces: however they come, the first bytes are kept");
}

static void test_idle(void)
{
    struct capture capture;
    int sink = memfd(), end = open_one(&capture, sink, 10);
    check(capture_drain(&capture.stream[0]) == 0 && capture.stream[0].source >= 0 &&
              capture.stream[0].seen == 0,
          "idle: an empty pipe does not wait");
    check(!(fcntl(end, F_GETFL) & O_NONBLOCK), "idle: the program's end is a pipe as any");
    check((fcntl(end, F_GETFD) & FD_CLOEXEC) &&
              (fcntl(capture.stream[0].source, F_GETFD) & FD_CLOEXEC),
          "idle: both ends are close-on-exec");
    check(capture.stream[1].source == -1 && capture.stream[1].seen == -1 &&
              capture_drain(&capture.stream[1]) == 0,
          "idle: what is not captured stays unmeasured");
    (void)close(end);
    capture_close(&capture);
    capture_close(&capture);
    check(capture.stream[0].source == -1 && capture.stream[0].seen == 0,
          "idle: it can be closed twice");
    (void)close(sink);
}

/* A writer that always has more: one turn comes to an end all the same. */
static void test_flood(void)
{
    struct capture capture;
    int sink = memfd(), end = open_one(&capture, sink, 100);
    static char zeros[1 << 16];
    pid_t child = fork();
    if (child < 0)
        bail_out("fork");
    if (child == 0) {
        for (int i = 0; i < 64; i++)
            if (write(end, zeros, sizeof zeros) != sizeof zeros)
                _exit(1);
        _exit(0);
    }
    (void)close(end);
    struct stream *stream = &capture.stream[0];
    bool bounded = true;
    int error = 0;
    while (error == 0 && stream->source >= 0) {
        int64_t before = stream->seen;
        error = capture_drain(stream);
        bounded = bounded && stream->seen - before <= TURN_BYTES;
    }
    int status = -1;
    (void)waitpid(child, &status, 0);
    check(status == 0 && error == 0 && stream->seen == 64 * (int64_t)sizeof zeros &&
              holds(sink, zeros, 100),
          "flood: 4 MiB pass, 100 bytes are kept, the writer ends well");
    check(bounded, "flood: a turn moves at most 1 MiB");
    capture_close(&capture);
    (void)close(sink);
}

static int drain_into(int sink, int64_t keep)
{
    struct capture capture;
    int end = open_one(&capture, sink, keep);
    put(end, "x", 1);
    (void)close(end);
    int error = capture_drain(&capture.stream[0]);
    capture_close(&capture);
    return error;
}

/* A file size limit is SIGXFSZ, or EFBIG where that is ignored. */
static int drain_beyond_limit(const void *argument)
{
    (void)argument;
    const struct rlimit none = {0, 0};
    if (setrlimit(RLIMIT_FSIZE, &none) < 0 || signal(SIGXFSZ, SIG_IGN) == SIG_ERR)
        return 1;
    return drain_into(memfd(), 1) == -EFBIG ? 0 : 2;
}

static void test_sinks(void)
{
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC), readable = open("/dev/null", O_RDONLY);
    if (full < 0 || readable < 0)
        bail_out("/dev/full");
    check(drain_into(full, 1) == -ENOSPC, "sinks: a full one is ENOSPC");
    check(drain_into(full, 0) == 0, "sinks: nothing is written to one that keeps nothing");
    check(drain_into(readable, 1) == -EBADF, "sinks: one that cannot be written to is EBADF");
    int sink = memfd();
    (void)close(sink);
    check(drain_into(sink, 1) == -EBADF, "sinks: a closed one is EBADF");
    check(in_child(drain_beyond_limit, NULL) == 0,
          "sinks: one at its file size limit is EFBIG");
    (void)close(full);
    (void)close(readable);
}

/* Both streams, and no room for the second one's pipe. */
static int open_without_room(const void *argument)
{
    (void)argument;
    static struct frame frame;
    frame.request.watch = (struct wire_watch){.sink = {0, 0}};
    while (dup(0) >= 0)
        ;
    (void)close(10);
    (void)close(11);
    struct capture capture;
    int ends[2] = {-1, -1};
    if (capture_open(&capture, &frame, ends) != -EMFILE || ends[0] < 0 || ends[1] != -1)
        return 1;
    capture_close(&capture);
    return capture.stream[0].source == -1 && capture.stream[1].source == -1 ? 0 : 2;
}

static void test_finish(void)
{
    static char zeros[4096];
    struct capture capture;
    int end = open_one(&capture, memfd(), 0);
    struct stream *stream = &capture.stream[0];
    int64_t size = fcntl(end, F_SETPIPE_SZ, TURN_BYTES);
    if (size < TURN_BYTES || fcntl(end, F_SETFL, O_NONBLOCK) < 0)
        bail_out("F_SETPIPE_SZ");
    while (write(end, zeros, sizeof zeros) > 0)
        ;
    check(capture_finish(stream) == 0 && stream->seen == size,
          "finish: all that the largest pipe holds is taken");
    capture_close(&capture);
    check(capture_finish(stream) == 0, "finish: nothing is to be taken from what is closed");

    *stream = (struct stream){.source = open("/dev/zero", O_RDONLY), .sink = -1};
    (void)alarm(10);
    check(capture_finish(stream) == 0 && stream->seen <= 2 * TURN_BYTES,
          "finish: who writes on does not hold us up");
    (void)alarm(0);
    close_fd(&stream->source);
    (void)close(end);
}

int main(void)
{
    test_bounds();
    test_pieces();
    test_idle();
    test_flood();
    test_sinks();
    test_finish();
    check(in_child(open_without_room, NULL) == 0, "open: without a free fd it is EMFILE");
    return finish();
}
