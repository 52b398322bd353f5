/*
 * Hostile: opens its own stdin once more, for writing. If that is the judge's file of this test, it
 * could change what others are judged by; it leaves the file as it is, and fails.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static int is_somebodys_file(int fd)
{
    struct stat status;
    return fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_nlink > 0;
}

int main(void)
{
    if (is_somebodys_file(0) && open("/proc/self/fd/0", O_WRONLY) >= 0)
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
