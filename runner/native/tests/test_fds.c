/*
 * clear_fds and place_fds: whatever the program's fds are made of and wherever
 * ours lie, each is the file that was asked for.
 *
 * Every case runs in a child, whose fds it moves. A file is known by the device
 * and inode of its memfd or pipe.
 */
#define _GNU_SOURCE
#include "steps.h"
#include "sys.h"

#include "tap.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

enum { SOURCES = 4, TARGETS = 4, OPEN_MAX_TRIED = 256, PIPES = 2 };

/* Where our own fds lie before the steps, and what the program's are to be. */
struct layout {
    int source_at[SOURCES];
    int pipe_at[PIPES]; /* -1: not captured */
    int sync_at;
    unsigned source_count;
    unsigned target_count;
    int32_t list[TARGETS + 1];
};

static bool same_file(int fd, const struct stat *wanted)
{
    struct stat now;
    return fstat(fd, &now) == 0 && now.st_dev == wanted->st_dev && now.st_ino == wanted->st_ino;
}

/* Make a file of ours at just this number. */
static struct stat make_at(int number)
{
    struct stat status;
    int fd = memfd_create("source", MFD_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0)
        bail_out("memfd_create");
    if (fd != number && (dup3(fd, number, O_CLOEXEC) < 0 || close(fd) < 0))
        bail_out("dup3 to %d", number);
    return status;
}

static struct step place_step(const struct layout *layout)
{
    return (struct step){
        .op = OP_place_fds,
        .data = (const uint8_t *)layout->list,
        .length = layout->target_count * sizeof *layout->list,
    };
}

static bool closed(int fd)
{
    return fcntl(fd, F_GETFD) < 0 && errno == EBADF;
}

/* Returns 0, or the number of what is wrong. */
static int place(const void *argument)
{
    const struct layout *layout = argument;
    struct stat source[SOURCES], pipe[PIPES], sync;
    struct context context = {.fd_count = layout->source_count, .pipes = {-1, -1}, .sync = -1};
    int fds[SOURCES];
    (void)syscall(SYS_close_range, 0, ~0u, 0); /* each number is free; ENOSYS fails the test */
    for (unsigned i = 0; i < layout->source_count; i++) {
        source[i] = make_at(layout->source_at[i]);
        fds[i] = layout->source_at[i];
    }
    for (int i = 0; i < PIPES; i++)
        if (layout->pipe_at[i] >= 0)
            pipe[i] = make_at(context.pipes[i] = layout->pipe_at[i]);
    if (layout->sync_at >= 0)
        sync = make_at(context.sync = layout->sync_at);
    context.fds = fds;
    const struct step clear = {.op = OP_clear_fds, .arg = {layout->target_count}};
    const struct step placing = place_step(layout);
    if (op_clear_fds(&clear, &context) != 0 || op_place_fds(&placing, &context) != 0)
        return 1;
    for (int target = 0; target < (int)layout->target_count; target++) {
        int32_t wanted = layout->list[target];
        if (wanted == FD_CLOSED ? !closed(target)
            : wanted < 0        ? !same_file(target, &pipe[FD_STDOUT_PIPE - wanted])
                                : !same_file(target, &source[wanted]))
            return 2;
        if (wanted != FD_CLOSED && fcntl(target, F_GETFD) != 0)
            return 3; /* it would be closed at exec */
    }
    for (unsigned i = 0; i < layout->source_count; i++)
        if (fds[i] < (int)layout->target_count || !same_file(fds[i], &source[i]))
            return 4; /* later steps need it: cgroups */
    if (layout->sync_at >= 0 &&
        (context.sync < (int)layout->target_count || !same_file(context.sync, &sync)))
        return 5;
    return 0;
}

/* Next in the order of counting, digits `low` to `high`; false after the last one. */
static bool next_list(int32_t *list, unsigned count, int32_t low, int32_t high)
{
    for (unsigned i = 0; i < count; i++) {
        if (list[i] < high) {
            list[i]++;
            return true;
        }
        list[i] = low;
    }
    return false;
}

/*
 * Every way to fill 0 to 4 targets from 1 to 4 sources, repeated and closed ones
 * too. The sources lie at the targets' own numbers, so each order of copies that
 * did not clear them first would destroy one.
 */
static void test_every_list(void)
{
    for (unsigned sources = 1; sources <= SOURCES; sources++)
        for (unsigned targets = 0; targets <= TARGETS; targets++) {
            struct layout layout = {
                .source_at = {0, 1, 2, 3},
                .pipe_at = {-1, -1},
                .sync_at = -1,
                .source_count = sources,
                .target_count = targets,
                .list = {FD_CLOSED, FD_CLOSED, FD_CLOSED, FD_CLOSED},
            };
            int wrong = 0, tried = 0;
            do {
                wrong = in_child(place, &layout);
                tried++;
            } while (!wrong && next_list(layout.list, targets, FD_CLOSED, (int)sources - 1));
            check(!wrong, "lists: %d ways to make %u fds of %u are right (%d)", tried, targets,
                  sources, wrong);
        }
}

/* Every order of three sources, two pipes and the sync socket over the numbers 0 to 5. */
static void test_every_place(void)
{
    static const int32_t lists[][TARGETS] = {
        {0, FD_STDOUT_PIPE, FD_STDERR_PIPE, 1},
        {FD_STDERR_PIPE, 2, 1, FD_STDOUT_PIPE},
        {FD_STDOUT_PIPE, FD_STDOUT_PIPE, FD_CLOSED, 0},
    };
    for (size_t n = 0; n < sizeof lists / sizeof *lists; n++) {
        int wrong = 0, tried = 0;
        int32_t at[6] = {0};
        do {
            unsigned used = 0;
            for (int i = 0; i < 6; i++)
                used |= 1u << at[i];
            if (used != 0x3f)
                continue; /* not one number each */
            struct layout layout = {
                .source_at = {at[0], at[1], at[2]},
                .pipe_at = {at[3], at[4]},
                .sync_at = at[5],
                .source_count = 3,
                .target_count = TARGETS,
            };
            memcpy(layout.list, lists[n], sizeof lists[n]);
            wrong = in_child(place, &layout);
            tried++;
        } while (!wrong && next_list(at, 6, 0, 5));
        check(!wrong && tried == 720, "places: list %zu in %d orders of ours is right (%d)", n,
              tried, wrong);
    }
}

static int place_pipe_that_is_not(const void *argument)
{
    (void)argument;
    struct context context = {.pipes = {-1, -1}, .sync = -1};
    const int32_t list[] = {FD_STDOUT_PIPE};
    const struct step step = {.data = (const uint8_t *)list, .length = sizeof list};
    return op_place_fds(&step, &context) == -EBADF ? 0 : 1;
}

/* Fills the table up, so that nothing can be moved. */
static int clear_full_table(const void *argument)
{
    (void)argument;
    int fds[] = {0};
    struct context context = {.fds = fds, .fd_count = 1, .pipes = {-1, -1}, .sync = -1};
    while (dup(0) >= 0)
        ;
    const struct step step = {.arg = {3}};
    return op_clear_fds(&step, &context) == -EMFILE ? 0 : 1;
}

static int close_all_from_three(const void *argument)
{
    (void)argument;
    struct context context = {.sync = -1};
    for (int fd = 0; fd < OPEN_MAX_TRIED; fd++)
        (void)dup2(1, fd); /* 1 is open, and no copy is close-on-exec */
    const struct step step = {.arg = {3}};
    if (op_close_range(&step, &context) != 0)
        return 1;
    for (int fd = 0; fd < OPEN_MAX_TRIED; fd++)
        if (fcntl(fd, F_GETFD) != (fd < 3 ? 0 : FD_CLOEXEC))
            return 2;
    return 0;
}

/* After an exec just the program's fds are there: sh counts them, with the one that it reads.
 */
static int exec_and_list(const void *argument)
{
    const int *output = argument;
    int fds[] = {open("/dev/null", O_RDWR), 200};
    if (fds[0] < 0 || dup2(*output, 200) < 0) /* both survive an exec so far */
        return 1;
    struct context context = {.fds = fds, .fd_count = 2, .pipes = {-1, -1}, .sync = -1};
    const int32_t list[] = {0, 1, FD_CLOSED};
    const struct step clear = {.arg = {3}}, close_rest = {.arg = {3}};
    const struct step placing = {.data = (const uint8_t *)list, .length = sizeof list};
    if (op_clear_fds(&clear, &context) || op_place_fds(&placing, &context) ||
        op_close_range(&close_rest, &context))
        return 2;
    (void)execl("/bin/sh", "sh", "-c", "cd /proc/self/fd && echo *", (char *)NULL);
    return 3;
}

static void test_exec(void)
{
    int output = memfd_create("output", 0);
    if (output < 0)
        bail_out("memfd_create");
    int status = in_child(exec_and_list, &output);
    char text[128] = "";
    (void)pread(output, text, sizeof text - 1, 0); /* nothing read is not what is wanted */
    text[strcspn(text, "\n")] = 0;
    /* 2 was closed; it is the directory that the shell reads for the star. */
    check(status == 0 && strcmp(text, "0 1 2") == 0,
          "exec: only what was placed is left (%d: %s)", status, text);
    (void)close(output);
}

int main(void)
{
    test_every_list();
    test_every_place();
    check(in_child(place_pipe_that_is_not, NULL) == 0, "place: a pipe that is not is EBADF");
    check(in_child(clear_full_table, NULL) == 0, "clear: without a free fd it is EMFILE");
    check(in_child(close_all_from_three, NULL) == 0, "close_range: marks all above, no others");
    test_exec();
    return finish();
}
