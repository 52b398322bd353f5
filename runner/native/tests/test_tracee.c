/*
 * tracee_find: paths of a process, here our own, are found as the kernel finds them, which
 * realpath(3) tells for those that exist; and those of /proc are named, not followed.
 */
#define _GNU_SOURCE
#include "tracee.h"

#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static char top[PATH_MAX];
static int proc;

static struct tracee_path path_of(const char *name, int directory, bool follow)
{
    struct tracee_path path = {.directory = directory, .follow = follow};
    (void)snprintf(path.name, sizeof path.name, "%s", name);
    return path;
}

static void make(void)
{
    check(mkdir("a", 0700) == 0 && mkdir("a/b", 0700) == 0 && mkdir("z", 0700) == 0, "mkdir");
    check(close(open("a/f", O_CREAT | O_WRONLY, 0600)) == 0, "a file");
    check(symlink("f", "a/to_f") == 0 && symlink("../a/b", "z/to_b") == 0, "symlinks");
    check(symlink("loop", "loop") == 0 && symlink("/", "to_root") == 0, "more symlinks");
    check(symlink("z/to_b", "two") == 0 && symlink("nowhere", "dangling") == 0, "and more");
    check(symlink("/proc/self/root", "out") == 0, "one through /proc");
}

static void test_existing(void)
{
    static const char *const names[] = {
        ".",
        "..",
        "a",
        "a/",
        "a//f",
        "a/./f",
        "a/../a/f",
        "a/to_f",
        "z/to_b",
        "z/to_b/..",
        "two/../f",
        "to_root",
        "to_root/usr",
        "/",
        "//usr/",
        "/..",
        "/../usr/../usr/bin/..",
        "../../../../../../../../../../usr",
    };
    char real[PATH_MAX];
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        struct tracee_path path = path_of(names[i], AT_FDCWD, true);
        int error = tracee_find(proc, getpid(), &path);
        bool same = error == 0 && realpath(names[i], real) && strcmp(path.found, real) == 0;
        check(same, "%s", names[i]);
    }
}

static void expect(const char *name, bool follow, int error, const char *below)
{
    char wanted[2 * PATH_MAX];
    struct tracee_path path = path_of(name, AT_FDCWD, follow);
    (void)snprintf(wanted, sizeof wanted, "%s%s", *below == '/' ? "" : top, below);
    int found = tracee_find(proc, getpid(), &path);
    check(found == error && (error || strcmp(path.found, wanted) == 0), "%s: %s, %d", name,
          path.found, found);
}

static void test_ends(void)
{
    char name[NAME_MAX + 3];
    memset(name, 'n', sizeof name);
    name[sizeof name - 1] = 0;
    (void)snprintf(top + strlen(top), 2, "/");
    expect("a/to_f", false, 0, "a/to_f");
    expect("z/to_b", false, 0, "z/to_b");
    expect("z/to_b/", false, 0, "a/b"); /* a slash at its end follows it */
    expect("dangling", true, 0, "nowhere");
    expect("dangling", false, 0, "dangling");
    expect("none", true, 0, "none");
    expect("none/of/these", true, 0, "none/of/these");
    expect("none/../a", true, -ENOENT, "");
    expect("a/f/below", true, 0, "a/f/below");
    expect("loop", true, -ELOOP, "");
    expect("loop", false, 0, "loop");
    expect(name, true, -ENAMETOOLONG, "");
}

static void test_proc(void)
{
    char own[64];
    expect("/proc/self", true, 0, "/proc/self");
    expect("/proc/thread-self/../self/mem", true, 0, "/proc/self/mem");
    (void)snprintf(own, sizeof own, "/proc/%d/status", (int)getpid());
    expect(own, true, 0, "/proc/self/status");
    expect("/proc/1/root/etc", true, 0, "/proc/1/root/etc");
    expect("/proc/self/root/etc/passwd", true, 0, "/proc/self/root/etc/passwd");
    expect("/proc/self/cwd/../..", true, -ENOENT, "");
    expect("out/etc", true, 0, "/proc/self/root/etc");
    expect("/proc/mounts", true, 0, "/proc/self/mounts");
    expect("/dev/stdin", true, 0, "/proc/self/fd/0");
}

static void test_directories(void)
{
    struct tracee_path path = path_of("f", open("a", O_PATH | O_DIRECTORY), true);
    char wanted[PATH_MAX + 8];
    (void)snprintf(wanted, sizeof wanted, "%sa/f", top);
    check(tracee_find(proc, getpid(), &path) == 0 && strcmp(path.found, wanted) == 0, "by fd");
    path = path_of("", path.directory, true);
    wanted[strlen(wanted) - 2] = 0;
    check(tracee_find(proc, getpid(), &path) == 0 && strcmp(path.found, wanted) == 0,
          "of an fd");
    path = path_of("x", 999, true);
    check(tracee_find(proc, getpid(), &path) == -EBADF, "by a closed fd");
    int ends[2];
    check(pipe(ends) == 0, "pipe");
    path = path_of("", ends[0], true);
    check(tracee_find(proc, getpid(), &path) == -EBADF, "of a pipe");
    check(mkdir("gone", 0700) == 0, "mkdir");
    path = path_of("x", open("gone", O_PATH), true);
    check(rmdir("gone") == 0 && tracee_find(proc, getpid(), &path) == -ENOENT,
          "of the removed");
}

static void test_dangerous(void)
{
    static const char *const bad[] = {
        "/proc/1",
        "/proc/1/status",
        "/proc/self/mem",
        "/proc/self/fd",
        "/proc/self/fd/3",
        "/proc/self/fd/00",
        "/proc/self/fdinfo/0",
        "/proc/self/root",
        "/proc/self/root/etc",
        "/proc/self/cwd",
        "/proc/self/task",
        "/proc/self/task/1/mem",
        "/proc/self/ns/net",
        "/proc/self/map_files",
        "/proc/thread-self/mem",
        "/proc/thread-self/fd/9",
    };
    static const char *const good[] = {
        "/proc",         "/proc/self",        "/proc/self/status", "/proc/self/exe",
        "/proc/meminfo", "/proc/selfish/mem", "/processes/1",      "/proc/self/fda",
    };
    check(tracee_path_standard("/proc/self/fd/0") && tracee_path_standard("/proc/self/fd/2"),
          "standard streams");
    check(!tracee_path_standard("/proc/self/fd/3") &&
              !tracee_path_standard("/proc/self/fd/01") &&
              !tracee_path_standard("/proc/self/fd/"),
          "no standard streams");
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
        check(tracee_path_dangerous(bad[i]), "%s", bad[i]);
    for (unsigned i = 0; i < sizeof good / sizeof *good; i++)
        check(!tracee_path_dangerous(good[i]), "%s", good[i]);
}

/* A text that ends where the next page is not there, and one that does not. */
static void test_text(void)
{
    const size_t page = 4096;
    char text[64], *pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(pages != MAP_FAILED && munmap(pages + page, page) == 0, "a page and a hole");
    memcpy(pages + page - 6, "/a/b/", 6);
    uint64_t address = (uint64_t)(uintptr_t)pages + page - 6;
    check(tracee_text(getpid(), address, text, sizeof text) == 0 && strcmp(text, "/a/b/") == 0,
          "a text before a hole");
    pages[page - 1] = 'x';
    check(tracee_text(getpid(), address, text, sizeof text) == -EFAULT, "a text into a hole");
    check(tracee_text(getpid(), 1, text, sizeof text) == -EFAULT, "a text nowhere");
    memset(pages, 'x', page);
    check(tracee_text(getpid(), (uint64_t)(uintptr_t)pages, text, sizeof text) == -ENAMETOOLONG,
          "a text that is too long");
}

int main(void)
{
    char directory[] = "/tmp/test_tracee.XXXXXX";
    proc = open("/proc", O_PATH | O_DIRECTORY);
    check(proc >= 0 && mkdtemp(directory) && chdir(directory) == 0 && realpath(".", top),
          "a directory");
    make();
    test_existing();
    test_ends();
    test_proc();
    test_directories();
    test_dangerous();
    test_text();
    char command[64];
    (void)snprintf(command, sizeof command, "rm -rf %s", directory);
    check(chdir("/") == 0 && system(command) == 0, "removed");
    return finish();
}
