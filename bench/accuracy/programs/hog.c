/*
 * hog FILE: touch memory until somebody ends it. The file, of a page, holds two
 * times of CLOCK_MONOTONIC in ns: of its start, and the last at which it still went on.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

enum { PAGE = 4096, PAGES = 16 };

static int64_t now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail: the clock exists */
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

int main(int argc, char *argv[])
{
    int fd = argc == 2 ? open(argv[1], O_RDWR) : -1;
    volatile int64_t *times = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (times == MAP_FAILED)
        return 1;
    times[0] = now_ns();
    for (;;) {
        volatile char *memory = mmap(NULL, PAGE * PAGES, PROT_READ | PROT_WRITE,
                                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED)
            return 1;
        times[1] = now_ns();
        for (int i = 0; i < PAGES; i++)
            memory[i * PAGE] = 1;
    }
}
