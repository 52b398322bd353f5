/* Hostile: ignores every signal that it may, and spins; the alarm ends it after a minute. */
#include <signal.h>
#include <unistd.h>

int main(void)
{
    for (int number = 1; number < NSIG; number++)
        if (number != SIGALRM)
            signal(number, SIG_IGN);
    alarm(60);
    for (volatile unsigned i = 0;; i++)
        continue;
}
