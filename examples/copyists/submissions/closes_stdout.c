/* Hostile: closes its ends of all pipes, so that a judge who waits for EOF believes it has ended. */
#include <stdio.h>
#include <unistd.h>

int main(void)
{
    puts("5");
    fflush(stdout);
    for (int fd = 0; fd < 3; fd++)
        close(fd);
    alarm(60);
    for (volatile unsigned i = 0;; i++)
        continue;
}
