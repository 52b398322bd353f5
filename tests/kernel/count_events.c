// Cause a known number of events: count_events faults|child-faults|sleeps|read N-OR-FILE.

#define _GNU_SOURCE

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096 };

static int fault(size_t count)
{
    volatile char *memory =
        mmap(NULL, count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || madvise((void *)memory, count * PAGE, MADV_NOHUGEPAGE) < 0) {
        return 1;
    }
    for (size_t at = 0; at < count; at++) {
        memory[at * PAGE] = 1;
    }
    return 0;
}

static int read_mapped(const char *path)
{
    struct stat status;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &status) < 0) {
        return 1;
    }
    volatile char *file = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_SHARED, fd, 0);
    return file == MAP_FAILED ? 1 : file[0] & 0;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        return 2;
    }
    long count = strtol(argv[2], NULL, 10);
    if (strcmp(argv[1], "faults") == 0) {
        return fault((size_t)count);
    }
    if (strcmp(argv[1], "child-faults") == 0) {
        int status = 1;
        pid_t child = fork();
        if (child == 0) {
            _exit(fault((size_t)count));
        }
        return waitpid(child, &status, 0) == child ? status : 1;
    }
    if (strcmp(argv[1], "sleeps") == 0) {
        const struct timespec moment = {.tv_nsec = 100000};
        for (long i = 0; i < count; i++) {
            (void)nanosleep(&moment, NULL);
        }
        return 0;
    }
    return read_mapped(argv[2]);
}
