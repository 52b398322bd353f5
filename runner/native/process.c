/* Operations on the process itself, up to its exec. */
#define _GNU_SOURCE
#include "steps.h"
#include "sys.h"

#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

int op_chdir(const struct step *step, struct context *context)
{
    (void)context;
    return (int)sys_result(chdir(step->strings[0]));
}

int op_hostname(const struct step *step, struct context *context)
{
    (void)context;
    return (int)sys_result(sethostname(step->strings[0], strlen(step->strings[0])));
}

int op_domainname(const struct step *step, struct context *context)
{
    (void)context;
    return (int)sys_result(
        syscall(SYS_setdomainname, step->strings[0], strlen(step->strings[0])));
}

int op_setsid(const struct step *step, struct context *context)
{
    (void)step;
    (void)context;
    return setsid() < 0 ? -errno : 0;
}

/* arg: signal. A change of uid clears it (prctl(2)), so it comes after setuid. */
int op_parent_death(const struct step *step, struct context *context)
{
    (void)context;
    return (int)sys_result(prctl(PR_SET_PDEATHSIG, (unsigned long)step->arg[0], 0, 0, 0));
}

int op_umask(const struct step *step, struct context *context)
{
    (void)context;
    (void)umask((mode_t)step->arg[0]); /* cannot fail */
    return 0;
}

/*
 * The keeper has reset all dispositions at its start, so a program inherits the
 * defaults: only its mask has to be emptied (the keeper blocks SIGPIPE).
 */
int op_signals(const struct step *step, struct context *context)
{
    (void)step;
    (void)context;
    sigset_t none;
    sigemptyset(&none);
    return (int)sys_result(sigprocmask(SIG_SETMASK, &none, NULL));
}

/* Tell the keeper that all is set up … */
int op_sync_write(const struct step *step, struct context *context)
{
    (void)step;
    const char word = 0;
    return send(context->sync, &word, 1, MSG_NOSIGNAL) == 1 ? 0 : -errno;
}

/* … and wait for its word. */
int op_sync_read(const struct step *step, struct context *context)
{
    (void)step;
    char word;
    ssize_t got = recv(context->sync, &word, 1, 0);
    if (got < 0)
        return -errno;
    return got == 1 ? 0 : -EPIPE; /* the keeper has gone */
}

int op_argv(const struct step *step, struct context *context)
{
    context->argv = step->strings;
    return 0;
}

int op_envp(const struct step *step, struct context *context)
{
    context->envp = step->strings;
    return 0;
}

/*
 * strings: paths to try, in this order, as execvp(3) does: go on where there is
 * no such file, remember that one was not allowed.
 */
int op_exec(const struct step *step, struct context *context)
{
    int error = ENOENT;
    if (!context->argv || !context->envp)
        return -EINVAL;
    report_exec(context->report);
    for (unsigned i = 0; i < step->string_count; i++) {
        (void)execve(step->strings[i], (char *const *)context->argv,
                     (char *const *)context->envp);
        if (errno == EACCES)
            error = EACCES;
        else if (errno != ENOENT && errno != ENOTDIR)
            return -errno;
        else if (error != EACCES)
            error = errno;
    }
    return -error;
}
