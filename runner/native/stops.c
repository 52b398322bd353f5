/*
 * What the program sees of a tracer is to be as little as can be: it is seized (PTRACE_SEIZE),
 * so that stop signals stop it as ever, an exec sends it no signal, and each signal is passed
 * on.
 *
 * Stops are told by SIGCHLD alone, not by the pidfd: it is blocked and read from a signalfd.
 */
#define _GNU_SOURCE
#include "stops.h"

#include <signal.h>
#include <stdbool.h>
#include <sys/ptrace.h>
#include <sys/signalfd.h>
#include <sys/socket.h>

static void mask_sigchld(int how, sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGCHLD);
    (void)sigprocmask(how, set, NULL); /* fails for no signal of its own */
}

/* Blocked, or it is dropped; a program's own mask is set before its exec. */
int stops_open(void)
{
    sigset_t set;
    mask_sigchld(SIG_BLOCK, &set);
    int stops = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    return stops < 0 ? -errno : stops;
}

void stops_close(int *stops)
{
    sigset_t set;
    if (*stops < 0)
        return;
    close_fd(stops);
    mask_sigchld(SIG_UNBLOCK, &set);
}

void stops_take(int stops)
{
    struct signalfd_siginfo told;
    while (read(stops, &told, sizeof told) > 0)
        continue; /* many are one: what there is tells waitid */
}

void stops_return(void)
{
    (void)raise(SIGCHLD);
}

int stops_seize(pid_t program, int sync, unsigned options)
{
    const char word = 0;
    if (ptrace(PTRACE_SEIZE, program, NULL, (void *)(uintptr_t)options) < 0)
        return -errno;
    (void)send(sync, &word, 1, MSG_NOSIGNAL); /* fails if it has died: seen at its end */
    return 0;
}

int stops_resume(pid_t thread, int status)
{
    const int number = status & 0xff, event = status >> 8;
    const bool stops =
        number == SIGSTOP || number == SIGTSTP || number == SIGTTIN || number == SIGTTOU;
    const bool stays = event == PTRACE_EVENT_STOP && stops;
    return (int)sys_result(ptrace(stays ? PTRACE_LISTEN : PTRACE_CONT, thread, NULL,
                                  (void *)(intptr_t)(event == 0 ? number : 0)));
}
