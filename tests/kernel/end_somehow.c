// End in one known way: end_somehow HOW [NUMBER]. Compiled with STATIC_MIB it has an array of
// that size, which it touches only if told to.

#define _GNU_SOURCE

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef STATIC_MIB
#define STATIC_MIB 1
#endif

enum { PAGE = 4096, REFUSED = 7, GAVE_UP = 3 };

static volatile char array[(size_t)STATIC_MIB << 20];

static void touch(volatile char *memory, size_t size)
{
    for (size_t at = 0; at < size; at += PAGE)
        memory[at] = 1;
}

static int use_malloc(long size)
{
    char *memory = malloc((size_t)size);
    if (!memory)
        return REFUSED;
    touch(memory, (size_t)size);
    return 0;
}

// A child takes too much; the parent, which is small, sees it die and goes on.
static int lose_child(long size)
{
    int status = 0;
    pid_t child = fork();
    if (child == 0)
        _exit(use_malloc(size));
    if (waitpid(child, &status, 0) != child)
        return 1;
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL ? 0 : 2;
}

static void *sleeper(void *unused)
{
    (void)pause();
    return unused;
}

// Returns REFUSED if one of the threads was, and otherwise 0; `forgiving`: always 0.
static int start_threads(long count, int forgiving)
{
    for (long i = 0; i < count; i++) {
        pthread_t thread;
        int error = pthread_create(&thread, NULL, sleeper, NULL);
        if (error)
            return forgiving ? 0 : error == EAGAIN ? REFUSED : 1;
    }
    return 0;
}

static int start_forks(long count)
{
    for (long i = 0; i < count; i++) {
        pid_t child = fork();
        if (child == 0)
            return (int)pause();
        if (child < 0)
            return errno == EAGAIN ? REFUSED : 1;
    }
    return 0;
}

// To the standard output, which may be a file.
static int write_bytes(long size)
{
    char block[1024];
    memset(block, 'x', sizeof block);
    for (long left = size; left > 0;) {
        ssize_t done = write(1, block, left < 1024 ? (size_t)left : sizeof block);
        if (done < 0)
            return errno == EFBIG ? GAVE_UP : 1;
        left -= done;
    }
    return 0;
}

static int recurse(long depth)
{
    volatile char frame[PAGE];
    frame[0] = (char)depth;
    return depth ? recurse(depth - 1) + frame[0] : 0;
}

int main(int argc, char **argv)
{
    const char *how = argc > 1 ? argv[1] : "";
    long number = argc > 2 ? strtol(argv[2], NULL, 10) : 0;
    if (strcmp(how, "malloc") == 0)
        return use_malloc(number);
    if (strcmp(how, "array") == 0)
        touch(array, sizeof array);
    else if (strcmp(how, "child") == 0)
        return lose_child(number);
    else if (strcmp(how, "threads") == 0)
        return start_threads(number, 0);
    else if (strcmp(how, "some-threads") == 0)
        return start_threads(number, 1);
    else if (strcmp(how, "forks") == 0)
        return start_forks(number);
    else if (strcmp(how, "write") == 0)
        return write_bytes(number);
    else if (strcmp(how, "write-on") == 0) {
        (void)signal(SIGXFSZ, SIG_IGN); // as Python does
        return write_bytes(number);
    } else if (strcmp(how, "stack") == 0)
        return recurse(number / PAGE);
    else if (strcmp(how, "kill") == 0)
        return kill(getpid(), (int)number);
    else if (strcmp(how, "exit") == 0)
        return (int)number;
    return 0;
}
