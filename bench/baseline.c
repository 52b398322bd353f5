/*
 * What everything is measured against: vfork, exec and wait of a program, bare.
 *
 * baseline PROGRAM [ARG…]: for each line "N" on stdin it runs the program N times and
 * prints the N durations in nanoseconds, on one line. A file that is open as fd 3 is at
 * its beginning each time: some other sandboxes read their filter from one.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { FILTER = 3 };

static long long now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail: the clock exists */
    return now.tv_sec * 1000000000ll + now.tv_nsec;
}

static void run(char *const args[])
{
    char *const env[] = {NULL};
    int status;
    (void)lseek(FILTER, 0, SEEK_SET); /* fails if there is none */
    pid_t pid = vfork();
    if (pid == 0) {
        execve(args[0], args, env);
        _exit(127);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) {
        fprintf(stderr, "baseline: %s could not be run, or failed\n", args[0]);
        exit(1);
    }
}

int main(int argc, char *argv[])
{
    int count;
    if (argc < 2) {
        fputs("usage: baseline PROGRAM [ARG...]\n", stderr);
        return 2;
    }
    while (scanf("%d", &count) == 1) {
        for (int i = 0; i < count; i++) {
            long long start = now_ns();
            run(argv + 1);
            printf("%lld ", now_ns() - start);
        }
        putchar('\n');
        fflush(stdout);
    }
    return 0;
}
