/* Hostile: answers, then stops itself: it neither runs nor ends. Its child ends it after a minute. */
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

int main(void)
{
    puts("5");
    fflush(stdout);
    pid_t self = getpid();
    if (fork() == 0) {
        sleep(60);
        kill(self, SIGKILL);
        _exit(0);
    }
    raise(SIGSTOP);
}
