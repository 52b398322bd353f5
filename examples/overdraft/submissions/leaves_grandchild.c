/* Hostile: answers and exits, but a process that it left holds the pipe for half a minute. */
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static void leave_grandchild(void)
{
    if (fork() != 0)
        return;
    setsid();
    signal(SIGHUP, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    if (fork() == 0)
        sleep(30);
    _exit(0);
}

int main(void)
{
    leave_grandchild();
    int days, amount;
    long long balance = 0;
    if (scanf("%d", &days) != 1)
        return 1;
    for (int day = 1; day <= days; day++) {
        if (scanf("%d", &amount) != 1)
            return 1;
        balance += amount;
        if (balance < 0) {
            printf("overdrawn %d\n", day);
            return 0;
        }
    }
    printf("solvent %lld\n", balance);
}
