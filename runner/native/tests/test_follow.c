/*
 * follow_tree: CPU time and memory of a tree, out of a /proc made for the test
 * and out of the real one. What a process is called must not matter: a name may
 * hold anything, and looks like whatever the program would like us to read.
 */
#define _GNU_SOURCE
#include "follow.h"
#include "sys.h"

#include "tap.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>

enum { PROGRAM_INSIDE = 2, MEMORY = 8 << 20 };

#define TICK_NS 10000000ll /* USER_HZ is 100 */

/* A process in the made-up /proc, below a directory that is removed at the end. */
struct fake {
    char path[64];
    int directory;
    struct {
        int pid;
        char files[2][64];
    } process[8];
    int count;
};

static const struct report none = {.pid_inside = PROGRAM_INSIDE};
static const char *const file_names[2] = {"stat", "status"};

static void fake_open(struct fake *fake)
{
    *fake = (struct fake){.path = "/tmp/run-sandboxed-test-XXXXXX"};
    if (!mkdtemp(fake->path) || (fake->directory = open(fake->path, O_RDONLY | O_CLOEXEC)) < 0)
        bail_out("mkdtemp");
}

static void fake_file(struct fake *fake, const char *path, const char *text)
{
    cleanup_fd int fd = openat(fake->directory, path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        bail_out("%s", path);
}

/* Ticks as in stat's fields 14 to 17; memory in KiB, as in status. */
static void fake_process(struct fake *fake, int pid, const char *name, const int ticks[4],
                         int anonymous, int shared)
{
    char text[2][512], number[16];
    (void)snprintf(
        text[0], sizeof *text,
        "%d (%s) S 1 %d %d 0 -1 4194560 11 22 33 44 %d %d %d %d 20 0 1 0 555 666 777\n", pid,
        name, pid, pid, ticks[0], ticks[1], ticks[2], ticks[3]);
    (void)snprintf(text[1], sizeof *text,
                   "Name:\t%s\nUmask:\t0022\nVmRSS:\t   99 kB\nRssAnon:\t%8d kB\n"
                   "RssFile:\t      77 kB\nRssShmem:\t%8d kB\nThreads:\t1\n",
                   name, anonymous, shared);
    (void)snprintf(number, sizeof number, "%d", pid);
    if (mkdirat(fake->directory, number, 0700) < 0)
        bail_out("mkdir %d", pid);
    fake->process[fake->count].pid = pid;
    for (int i = 0; i < 2; i++) {
        char *path = fake->process[fake->count].files[i];
        (void)snprintf(path, sizeof fake->process->files[i], "%d/%s", pid, file_names[i]);
        fake_file(fake, path, text[i]);
    }
    fake->count++;
}

static void fake_close(struct fake *fake)
{
    for (int n = 0; n < fake->count; n++) {
        char number[16];
        (void)snprintf(number, sizeof number, "%d", fake->process[n].pid);
        for (int i = 0; i < 2; i++)
            (void)unlinkat(fake->directory, fake->process[n].files[i], 0); /* may be gone */
        (void)unlinkat(fake->directory, number, AT_REMOVEDIR);
    }
    (void)close(fake->directory);
    if (rmdir(fake->path) < 0)
        bail_out("%s: something is left", fake->path);
}

/* A program that has ended has no clock: only what /proc says is left. */
static struct tree_usage follow(int directory, const struct report *report, bool exact)
{
    struct tree_usage usage;
    pid_t ended = fork();
    if (ended == 0)
        _exit(0);
    if (ended < 0 || waitpid(ended, NULL, 0) != ended)
        bail_out("fork");
    int error = follow_tree(directory, ended, report, exact, &usage);
    if (error < 0)
        bail_out("follow_tree: %d", error);
    return usage;
}

static void test_sums(void)
{
    static const struct report orphans = {
        .pid_inside = PROGRAM_INSIDE, .orphans_user_ns = 5, .orphans_system_ns = 7};
    struct fake fake;
    fake_open(&fake);
    struct tree_usage usage = follow(fake.directory, &none, false);
    check(usage.cpu_ns == 0 && usage.memory_bytes == 0 && usage.processes == 0,
          "sums: of nothing are nothing");
    fake_process(&fake, 1, "init", (int[]){1000, 1000, 1000, 1000}, 5000, 5000);
    usage = follow(fake.directory, &orphans, false);
    check(usage.cpu_ns == 12 && usage.memory_bytes == 0 && usage.processes == 0,
          "sums: init does not count, what it has reaped does");
    fake_process(&fake, PROGRAM_INSIDE, "a.out", (int[]){100, 200, 3, 4}, 10, 1);
    usage = follow(fake.directory, &none, false);
    check(usage.cpu_ns == 7 * TICK_NS && usage.memory_bytes == 11 * 1024 &&
              usage.processes == 1,
          "sums: of the program, only its children's ticks");
    fake_process(&fake, 30, "child", (int[]){1, 20, 300, 4000}, 100, 200);
    usage = follow(fake.directory, &orphans, false);
    check(usage.cpu_ns == (7 + 4321) * TICK_NS + 12 && usage.memory_bytes == 311 * 1024 &&
              usage.processes == 2,
          "sums: of another, its own ticks too");
    (void)unlinkat(fake.directory, "30/stat", 0);
    (void)unlinkat(fake.directory, "30/status", 0);
    usage = follow(fake.directory, &none, false);
    check(usage.cpu_ns == 7 * TICK_NS && usage.memory_bytes == 11 * 1024,
          "sums: one that ends meanwhile adds nothing");
    fake_close(&fake);
}

/* At most 15 bytes each (prctl(2), PR_SET_NAME); the kernel shows a newline as \n. */
static const char *const names[] = {
    "a.out",
    ")",
    "))",
    ") R 1 1",
    ") S 1 1 1 1 1 1",
    "(((",
    "a b c",
    "",
    " ",
    "%s%n",
    "\\n) R 0 0",
    "\xff\xfe",
    "RssAnon:",
    "RssAnon:0",
    "RssAnon: 9999",
    "RssShmem:999999",
    "\\nRssAnon:0",
    "\tRssAnon:\t1",
};

enum { NAMES = sizeof names / sizeof *names };

static void test_names(void)
{
    bool cpu = true, memory = true;
    for (int i = 0; i < NAMES; i++) {
        struct fake fake;
        fake_open(&fake);
        fake_process(&fake, 5, names[i], (int[]){1, 20, 300, 4000}, 100, 200);
        struct tree_usage usage = follow(fake.directory, &none, false);
        if (usage.cpu_ns != 4321 * TICK_NS)
            check(cpu = false, "names: CPU time of (%s) is %lld", names[i],
                  (long long)usage.cpu_ns);
        if (usage.memory_bytes != 300 * 1024)
            check(memory = false, "names: memory of (%s) is %lld", names[i],
                  (long long)usage.memory_bytes);
        fake_close(&fake);
    }
    check(cpu, "names: no name changes the CPU time");
    check(memory, "names: no name changes the memory");
}

static const char rollup[] = "00400000-7ffd00000000 ---p 00000000 00:00 0 [rollup]\n"
                             "Rss:   900 kB\nPss:   800 kB\nPss_Anon:   50 kB\n"
                             "Pss_File:   700 kB\nPss_Shmem:   6 kB\n";

static const char status[] = "Name:\tRssAnon:1\nRssAnon:\t 30 kB\nRssShmem:\t 4 kB\n";

static void test_exact(void)
{
    struct fake fake;
    fake_open(&fake);
    fake_process(&fake, 5, "x", (int[]){0, 0, 0, 0}, 100, 200);
    fake_file(&fake, "5/smaps_rollup", rollup);
    check(follow(fake.directory, &none, true).memory_bytes == 56 * 1024,
          "exact: shared pages are shared out");
    check(follow(fake.directory, &none, false).memory_bytes == 300 * 1024,
          "exact: or counted at each process");
    (void)unlinkat(fake.directory, "5/smaps_rollup", 0);
    fake_close(&fake);
}

/* Its first thread has ended: status has no memory, but that of the second thread has. */
static void test_threads(void)
{
    struct fake fake;
    fake_open(&fake);
    fake_process(&fake, 5, "x", (int[]){0, 0, 0, 0}, 0, 0);
    if (mkdirat(fake.directory, "5/task", 0700) < 0 ||
        mkdirat(fake.directory, "5/task/5", 0700) < 0 ||
        mkdirat(fake.directory, "5/task/6", 0700) < 0)
        bail_out("mkdir");
    fake_file(&fake, "5/task/5/status", "Name:\tx\n");
    fake_file(&fake, "5/task/6/status", status);
    fake_file(&fake, "5/task/6/smaps_rollup", rollup);
    check(follow(fake.directory, &none, false).memory_bytes == 34 * 1024 &&
              follow(fake.directory, &none, true).memory_bytes == 56 * 1024,
          "threads: memory shows at one that lives");
    (void)unlinkat(fake.directory, "5/task/5/status", 0);
    (void)unlinkat(fake.directory, "5/task/6/status", 0);
    (void)unlinkat(fake.directory, "5/task/6/smaps_rollup", 0);
    (void)unlinkat(fake.directory, "5/task/6", AT_REMOVEDIR);
    (void)unlinkat(fake.directory, "5/task/5", AT_REMOVEDIR);
    (void)unlinkat(fake.directory, "5/task", AT_REMOVEDIR);
    fake_close(&fake);
}

/* Texts that no kernel writes: cut short, empty, without the name. */
static void test_texts(void)
{
    static const char *const texts[] = {"", "5", "5 (x)", "5 (x",
                                        "5 (x) S 1 2 3 4 5 6 7 8 9 10 11 12"};
    bool nothing = true;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct fake fake;
        fake_open(&fake);
        fake_process(&fake, 5, "x", (int[]){1, 2, 3, 4}, 1, 1);
        (void)unlinkat(fake.directory, "5/stat", 0);
        (void)unlinkat(fake.directory, "5/status", 0);
        fake_file(&fake, "5/stat", texts[i]);
        fake_file(&fake, "5/status", texts[i]);
        struct tree_usage usage = follow(fake.directory, &none, false);
        nothing = nothing && usage.cpu_ns == 0 && usage.memory_bytes == 0;
        fake_close(&fake);
    }
    check(nothing, "texts: what is cut short counts as nothing");
}

/* More than fit into one getdents64: all are found. */
static void test_many(void)
{
    char path[] = "/tmp/run-sandboxed-test-XXXXXX", number[16];
    int directory = mkdtemp(path) ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (directory < 0)
        bail_out("mkdtemp");
    for (int i = 2; i < 2002; i++) {
        (void)snprintf(number, sizeof number, "%d", i);
        if (mkdirat(directory, number, 0700) < 0)
            bail_out("mkdir");
    }
    struct tree_usage usage = follow(directory, &none, false);
    check(usage.processes == 2000, "many: 2000 processes are all found");
    for (int i = 2; i < 2002; i++) {
        (void)snprintf(number, sizeof number, "%d", i);
        (void)unlinkat(directory, number, AT_REMOVEDIR);
    }
    (void)close(directory);
    (void)rmdir(path);
}

/* Burn CPU and touch memory under a name, then say so and wait to be killed. */
static _Noreturn void burn(const char *name, int64_t cpu_ns, int ready)
{
    char *memory =
        mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || prctl(PR_SET_NAME, name, 0, 0, 0) < 0)
        _exit(1);
    for (size_t at = 0; at < MEMORY; at += 4096)
        memory[at] = 1;
    while (clock_ns(CLOCK_PROCESS_CPUTIME_ID) < cpu_ns)
        ;
    (void)write(ready, "r", 1); /* if it fails, the end of the pipe says so */
    for (;;)
        (void)pause();
}

/*
 * A directory with one entry, the link N -> /proc/N: just this child of the
 * host's processes is in the tree.
 */
static void test_real(const char *name)
{
    const int64_t cpu_ns = 10 * TICK_NS;
    int ready[2];
    char path[] = "/tmp/run-sandboxed-test-XXXXXX", number[16], target[32], word;
    int directory = mkdtemp(path) ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (directory < 0 || pipe2(ready, O_CLOEXEC) < 0)
        bail_out("pipe");
    pid_t child = fork();
    if (child == 0)
        burn(name, cpu_ns, ready[1]);
    (void)close(ready[1]);
    (void)snprintf(number, sizeof number, "%d", child);
    (void)snprintf(target, sizeof target, "/proc/%d", child);
    if (child < 0 || symlinkat(target, directory, number) < 0 || read(ready[0], &word, 1) != 1)
        bail_out("child");
    struct tree_usage clock, ticks;
    int error = follow_tree(-1, child, &none, false, &clock);
    check(error == 0 && clock.cpu_ns >= cpu_ns && clock.cpu_ns < cpu_ns * 2 &&
              clock.memory_bytes == 0,
          "real: the clock of (%s) says %lld ns", name, (long long)clock.cpu_ns);
    ticks = follow(directory, &none, false);
    /* Ticks are of user and of system time, each rounded down: at most two are lost. */
    check(ticks.cpu_ns >= cpu_ns - 2 * TICK_NS && ticks.cpu_ns <= clock.cpu_ns &&
              ticks.memory_bytes >= MEMORY && ticks.memory_bytes < 8 * MEMORY,
          "real: ticks of (%s) say %lld ns, %lld bytes", name, (long long)ticks.cpu_ns,
          (long long)ticks.memory_bytes);
    (void)kill(child, SIGKILL);
    (void)waitpid(child, NULL, 0);
    (void)unlinkat(directory, number, 0);
    (void)close(directory);
    (void)close(ready[0]);
    (void)rmdir(path);
}

int main(void)
{
    test_sums();
    test_names();
    test_exact();
    test_threads();
    test_texts();
    test_many();
    test_real(") R 1 1");
    test_real("RssAnon:1");
    test_real("\nRssAnon:1 ");
    struct tree_usage usage;
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    check(follow_tree(null, 1, &none, false, &usage) == -ENOTDIR,
          "error: no directory is its errno");
    return finish();
}
