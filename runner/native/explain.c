/*
 * Why an exec failed, when it has: the keeper, in the program's namespaces, looks at
 * the files that were tried. The program's own process may not: its filter may forbid
 * to look, and would end it.
 *
 * An exec may fail when the old image is gone already: then the kernel can but kill,
 * by SIGSEGV (SIGKILL in old ones), and no errno is left.
 */
#define _GNU_SOURCE
#include "explain.h"

#include "sys.h"

#include <elf.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>

static const char *directory_of(const struct plan *plan)
{
    for (unsigned i = 0; i < plan->count; i++)
        if (plan->steps[i].phase == PHASE_PROGRAM && plan->steps[i].op == OP_chdir)
            return plan->steps[i].strings[0];
    return ".";
}

static enum detail explain_file(int directory, const char *path, int error)
{
    struct statvfs fs;
    cleanup_fd int fd = openat(directory, path, O_PATH | O_CLOEXEC);
    if (fd < 0)
        return DETAIL_NONE;
    if (error == ENOENT)
        return DETAIL_LOADER_MISSING; /* the file is there */
    if (error == EACCES && fstatvfs(fd, &fs) == 0 && (fs.f_flag & ST_NOEXEC))
        return DETAIL_MOUNTED_NOEXEC;
    return DETAIL_NONE;
}

enum detail explain_failure(const struct plan *plan, const struct report *report)
{
    if (report->location != LOCATION_EXECVE || report->step < 0 ||
        (unsigned)report->step >= plan->count)
        return DETAIL_NONE;
    const struct step *step = &plan->steps[report->step];
    if (step->op == OP_exec_fd && report->error == ENOENT)
        return DETAIL_LOADER_MISSING; /* the file is open */
    cleanup_fd int directory = open(directory_of(plan), O_PATH | O_DIRECTORY | O_CLOEXEC);
    enum detail found = DETAIL_NONE;
    for (unsigned i = 0; i < step->string_count && found == DETAIL_NONE; i++)
        found = explain_file(directory, step->strings[i], report->error);
    return found;
}

enum { SEGMENTS_MAX = 64 }; /* more than any linker makes; what is not read is not counted */

struct needs {
    uint64_t address_space;
    uint64_t data; /* what is private and writable: RLIMIT_DATA, setrlimit(2) */
};

/* Add what a page table can hold: a header that lies must not wrap around. */
static void add(uint64_t *sum, uint64_t bytes)
{
    *sum += bytes < (1ull << 56) ? bytes : 1ull << 56;
}

/* What the segments of a program take at least. False: it cannot be told. */
static bool needs_of(int fd, struct needs *needs)
{
    Elf64_Ehdr head;
    Elf64_Phdr segments[SEGMENTS_MAX];
    struct stat status;
    *needs = (struct needs){0};
    if (fd < 0 || fstat(fd, &status) < 0 || !S_ISREG(status.st_mode) ||
        pread(fd, &head, sizeof head, 0) != sizeof head ||
        memcmp(head.e_ident, ELFMAG, SELFMAG) != 0 || head.e_ident[EI_CLASS] != ELFCLASS64 ||
        head.e_phentsize != sizeof *segments || head.e_phnum > SEGMENTS_MAX)
        return false;
    ssize_t size = (ssize_t)(head.e_phnum * sizeof *segments);
    if (pread(fd, segments, (size_t)size, (off_t)head.e_phoff) != size)
        return false;
    for (unsigned i = 0; i < head.e_phnum; i++) {
        if (segments[i].p_type != PT_LOAD)
            continue;
        add(&needs->address_space, segments[i].p_memsz);
        if (segments[i].p_flags & PF_W)
            add(&needs->data, segments[i].p_memsz);
    }
    return true;
}

/* The soft limit that a plan sets, or all there is. */
static uint64_t limit_in(const struct plan *plan, int resource)
{
    uint64_t limit = RLIM_INFINITY;
    for (unsigned i = 0; i < plan->count; i++)
        if (plan->steps[i].op == OP_rlimit && plan->steps[i].arg[0] == resource)
            limit = (uint64_t)plan->steps[i].arg[1];
    return limit;
}

static enum detail explain_size(const struct plan *plan, int fd)
{
    struct needs needs;
    if (!needs_of(fd, &needs))
        return DETAIL_NONE;
    if (needs.address_space > limit_in(plan, RLIMIT_AS))
        return DETAIL_BEYOND_ADDRESS_SPACE;
    return needs.data > limit_in(plan, RLIMIT_DATA) ? DETAIL_BEYOND_DATA : DETAIL_NONE;
}

static enum detail explain_paths(const struct plan *plan, const struct step *exec)
{
    cleanup_fd int directory = open(directory_of(plan), O_PATH | O_DIRECTORY | O_CLOEXEC);
    for (unsigned i = 0; i < exec->string_count; i++) {
        if (faccessat(directory, exec->strings[i], F_OK, 0) < 0)
            continue; /* nor could it be executed */
        cleanup_fd int fd =
            openat(directory, exec->strings[i], O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        return explain_size(plan, fd);
    }
    return DETAIL_NONE;
}

enum detail explain_death(const struct plan *plan, const int *fds, int status)
{
    int number = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    if ((number != SIGSEGV && number != SIGKILL) ||
        (limit_in(plan, RLIMIT_AS) == RLIM_INFINITY &&
         limit_in(plan, RLIMIT_DATA) == RLIM_INFINITY))
        return DETAIL_NONE;
    for (unsigned i = 0; i < plan->count; i++) {
        const struct step *step = &plan->steps[i];
        if (step->op == OP_exec)
            return explain_paths(plan, step);
        if (step->op == OP_exec_fd && step->arg[0] >= 0)
            return explain_size(plan, fds[step->arg[0]]);
    }
    return DETAIL_NONE;
}
