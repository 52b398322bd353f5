/* Make as many calls as asked for: calls open|getppid COUNT. Prints ns a call. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct timespec before, after;
    bool opens = argc > 2 && strcmp(argv[1], "open") == 0;
    long count = argc > 2 ? strtol(argv[2], NULL, 10) : 0;
    clock_gettime(CLOCK_MONOTONIC, &before);
    for (long i = 0; i < count; i++) {
        if (opens)
            close(open("/usr/lib/os-release", O_RDONLY));
        else
            syscall(SYS_getppid);
    }
    clock_gettime(CLOCK_MONOTONIC, &after);
    long long ns =
        (after.tv_sec - before.tv_sec) * 1000000000ll + after.tv_nsec - before.tv_nsec;
    printf("%lld\n", count ? ns / count : 0);
    return 0;
}
