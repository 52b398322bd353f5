/*
 * witness COMMAND…: run a command and wait for all that it started, orphans too; then
 * say on stderr how much CPU time wait(2) told of them, in ns. What a process costs
 * after its own last look at the clock, its end, is in that; nothing of the witness is.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static long long ns(struct timeval time)
{
    return time.tv_sec * 1000000000ll + time.tv_usec * 1000ll;
}

int main(int argc, char *argv[])
{
    struct rusage usage;
    int status, first = 1;
    if (argc < 2 || prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
        return 2;
    pid_t pid = vfork(), ended;
    if (pid == 0) {
        execvp(argv[1], argv + 1);
        _exit(127);
    }
    while ((ended = wait(&status)) > 0)
        if (ended == pid)
            first = status;
    (void)getrusage(RUSAGE_CHILDREN, &usage);
    fprintf(stderr, "%lld\n", ns(usage.ru_utime) + ns(usage.ru_stime));
    return first != 0;
}
