/*
 * Why an exec failed, when it has: the keeper, in the program's namespaces, looks at
 * the files that were tried. The program's own process may not: its filter may forbid
 * to look, and would end it.
 */
#define _GNU_SOURCE
#include "explain.h"

#include "sys.h"

#include <fcntl.h>
#include <sys/statvfs.h>

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
    cleanup_fd int directory = open(directory_of(plan), O_PATH | O_DIRECTORY | O_CLOEXEC);
    enum detail found = DETAIL_NONE;
    for (unsigned i = 0; i < step->string_count && found == DETAIL_NONE; i++)
        found = explain_file(directory, step->strings[i], report->error);
    return found;
}
