/* Hostile: tries to leave its confinement. The first attempt that succeeds ends it with status 1. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <unistd.h>

static int confined(void)
{
    return unshare(CLONE_NEWUSER) < 0 && unshare(CLONE_NEWNS) < 0 && unshare(CLONE_NEWNET) < 0 &&
           chroot("/tmp") < 0 && mount("tmpfs", "/tmp", "tmpfs", 0, NULL) < 0 &&
           mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL) < 0 &&
           ptrace(PTRACE_ATTACH, 1, NULL, NULL) < 0;
}

int main(void)
{
    if (!confined())
        return 1;
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
