/*
 * A program that knows what it uses: calibrated KIND AMOUNT
 *
 * AMOUNT is milliseconds of CPU time in all for spin, threads, children, orphans,
 * system; and MiB in all for touch, tmpfs, memfd, shm, sysv, stack, many. At its end
 * it prints what it has used, as JSON: cpu_ns by the clocks of all its processes, or
 * the bytes that it touched and holds.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { TASKS = 4, PROCESSES = 8, PAGE = 4096, MILLION = 1000 * 1000 };

static int reports[2]; /* a pipe: each process writes its CPU time into it, and ends */

static void check(int ok, const char *what)
{
    if (!ok) {
        perror(what);
        exit(1);
    }
}

static int64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    (void)clock_gettime(clock, &now); /* cannot fail: the clock exists */
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static void burn(int64_t ns)
{
    int64_t end = clock_ns(CLOCK_THREAD_CPUTIME_ID) + ns;
    while (clock_ns(CLOCK_THREAD_CPUTIME_ID) < end)
        for (volatile int i = 0; i < 20000; i++)
            ;
}

static void burn_in_kernel(int64_t ns)
{
    static char buffer[1 << 16];
    int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    check(zero >= 0, "/dev/zero");
    int64_t end = clock_ns(CLOCK_THREAD_CPUTIME_ID) + ns;
    while (clock_ns(CLOCK_THREAD_CPUTIME_ID) < end)
        check(read(zero, buffer, sizeof buffer) > 0, "read");
}

static void *burn_a_share(void *ns)
{
    burn(*(int64_t *)ns);
    return NULL;
}

static void burn_by_threads(int64_t ns)
{
    pthread_t threads[TASKS];
    int64_t share = ns / TASKS;
    for (int i = 0; i < TASKS; i++)
        check(pthread_create(&threads[i], NULL, burn_a_share, &share) == 0, "pthread_create");
    for (int i = 0; i < TASKS; i++)
        (void)pthread_join(threads[i], NULL);
}

static _Noreturn void report_and_end(void)
{
    int64_t used = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    _exit(write(reports[1], &used, sizeof used) != sizeof used);
}

/* Returns what all of them reported, when the last has. */
static int64_t collect(void)
{
    int64_t used, sum = 0;
    (void)close(reports[1]);
    while (read(reports[0], &used, sizeof used) == sizeof used)
        sum += used;
    return sum;
}

static int64_t burn_by_children(int64_t ns, int orphaned)
{
    check(pipe2(reports, O_CLOEXEC) == 0, "pipe2");
    for (int i = 0; i < TASKS; i++) {
        if (fork() != 0)
            continue;
        if (!orphaned || fork() == 0)
            burn(ns / TASKS);
        report_and_end(); /* the parent of an orphan too */
    }
    int64_t sum = collect();
    while (wait(NULL) > 0)
        ;
    return sum;
}

static void touch(volatile char *memory, size_t size)
{
    for (size_t at = 0; at < size; at += PAGE)
        memory[at] = 1;
}

static void touch_map(size_t size, int flags, int fd)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);
    check(memory != MAP_FAILED, "mmap");
    touch(memory, size);
}

static void touch_fd(size_t size, int fd)
{
    check(fd >= 0 && ftruncate(fd, (off_t)size) == 0, "ftruncate");
    touch_map(size, MAP_SHARED, fd);
}

static void touch_sysv(size_t size)
{
    int segment = shmget(IPC_PRIVATE, size, IPC_CREAT | 0600);
    check(segment >= 0, "shmget");
    void *memory = shmat(segment, NULL, 0);
    check(memory != (void *)-1, "shmat");
    touch(memory, size);
}

static void write_file(size_t size)
{
    static const char page[PAGE] = {1};
    int fd = open("/tmp/file", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    for (size_t at = 0; at < size; at += PAGE)
        check(write(fd, page, PAGE) == PAGE, "/tmp/file");
}

static void touch_stack(size_t size)
{
    enum { FRAME = 1 << 16 };
    char frame[FRAME];
    touch(frame, FRAME);
    if (size > FRAME)
        touch_stack(size - FRAME);
    __asm__ volatile("" ::"r"(frame) : "memory"); /* no tail call: the frames stay */
}

/* All hold their share at the same time. */
static void touch_by_many(size_t size)
{
    int done[2], ready[2];
    check(pipe(ready) == 0 && pipe(done) == 0, "pipe");
    for (int i = 0; i < PROCESSES; i++) {
        if (fork() == 0) {
            char byte = 0;
            (void)close(done[1]);
            touch_map(size / PROCESSES, MAP_PRIVATE | MAP_ANONYMOUS, -1);
            _exit(write(ready[1], &byte, 1) != 1 || read(done[0], &byte, 1) != 0);
        }
    }
    char bytes[PROCESSES];
    for (ssize_t had = 0; had < PROCESSES;)
        had += read(ready[0], bytes, PROCESSES);
    (void)close(done[1]);
    while (wait(NULL) > 0)
        ;
}

static int use_memory(const char *kind, size_t size)
{
    if (!strcmp(kind, "touch"))
        touch_map(size, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    else if (!strcmp(kind, "tmpfs"))
        write_file(size);
    else if (!strcmp(kind, "memfd"))
        touch_fd(size, memfd_create("memory", MFD_CLOEXEC));
    else if (!strcmp(kind, "shm"))
        touch_fd(size, shm_open("/memory", O_RDWR | O_CREAT, 0600));
    else if (!strcmp(kind, "sysv"))
        touch_sysv(size);
    else if (!strcmp(kind, "stack"))
        touch_stack(size);
    else if (!strcmp(kind, "many"))
        touch_by_many(size);
    else
        return 2;
    printf("{\"bytes\": %zu}\n", size);
    return 0;
}

int main(int argc, char *argv[])
{
    if (argc != 3)
        return 2;
    const char *kind = argv[1];
    int64_t amount = strtoll(argv[2], NULL, 10), others = 0;
    if (!strcmp(kind, "spin"))
        burn(amount * MILLION);
    else if (!strcmp(kind, "threads"))
        burn_by_threads(amount * MILLION);
    else if (!strcmp(kind, "children") || !strcmp(kind, "orphans"))
        others = burn_by_children(amount * MILLION, kind[0] == 'o');
    else if (!strcmp(kind, "system"))
        burn_in_kernel(amount * MILLION);
    else
        return use_memory(kind, (size_t)amount << 20);
    printf("{\"cpu_ns\": %lld}\n", (long long)(clock_ns(CLOCK_PROCESS_CPUTIME_ID) + others));
    return 0;
}
