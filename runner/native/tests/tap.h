/* What the tests say: "ok - what" or "not ok - what" for each check, and the exit status. */
#pragma once

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static int failures;

/* Say whether it holds. The checks of one loop are one line: say it once, of all of them. */
__attribute__((format(printf, 2, 3))) static inline void check(bool holds, const char *format,
                                                               ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)fputs(holds ? "ok - " : "not ok - ", stdout);
    (void)vprintf(format, arguments);
    (void)putchar('\n');
    va_end(arguments);
    if (!holds)
        failures++;
}

/* The test cannot go on: the host refuses what it stands on. */
__attribute__((format(printf, 1, 2), noreturn)) static inline void bail_out(const char *format,
                                                                            ...)
{
    int error = errno;
    va_list arguments;
    va_start(arguments, format);
    (void)fputs("not ok - Bail out! ", stdout);
    (void)vprintf(format, arguments);
    (void)printf(" (errno %d)\n", error);
    va_end(arguments);
    exit(1);
}

/* Run `body` in a child, so that the fds and limits it changes stay its own; its result. */
static inline int in_child(int (*body)(const void *), const void *argument)
{
    (void)fflush(stdout);
    pid_t child = fork();
    if (child < 0)
        bail_out("fork");
    if (child == 0)
        _exit(body(argument));
    int status;
    if (waitpid(child, &status, 0) != child)
        bail_out("waitpid");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static inline int finish(void)
{
    return failures ? 1 : 0;
}
