/*
 * Hostile: starts processes until it is refused one, 2000 at the most, which all linger for 20 s.
 * It fails if it was refused; else it waits for them.
 */
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void)
{
    for (int started = 0; started < 2000; started++) {
        pid_t child = fork();
        if (child < 0) {
            perror("fork");
            return 1;
        }
        if (child == 0) {
            sleep(20);
            _exit(0);
        }
    }
    while (wait(NULL) > 0)
        continue;
}
