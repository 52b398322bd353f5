/*
 * Hostile: spreads its work over processes, sessions apart, so that none of them uses much time
 * itself. Each ends after 20 s.
 */
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHILDREN = 8 };

static void spin(void)
{
    setsid();
    alarm(20);
    for (volatile unsigned i = 0;; i++)
        continue;
}

int main(void)
{
    for (int started = 0; started < CHILDREN; started++)
        if (fork() == 0)
            spin();
    while (wait(NULL) > 0)
        continue;
    puts("5");
}
