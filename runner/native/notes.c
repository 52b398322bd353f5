/*
 * Files of the program's /proc, copied into the grader's memfd: it knows how to read them, and
 * we need not. What cannot be read (the program has no /proc, or an executable that its uid may
 * not read) is left out.
 */
#define _GNU_SOURCE
#include "notes.h"

#include "sys.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

enum { AT_EXIT, AT_GONE, PATH_BYTES = 64 };

static const struct {
    const char *file;
    int moment;
} notes[NOTE_END] = {
#define NOTE_ENTRY(name, file, moment) [NOTE_##name] = {file, AT_##moment},
    NOTES(NOTE_ENTRY)
#undef NOTE_ENTRY
};

static bool wanted(const struct watch *watch, unsigned note, int moment)
{
    return watch->notes_fd >= 0 && (watch->limits->notes >> note & 1) &&
           notes[note].moment == moment;
}

bool notes_at_exit(const struct watch *watch)
{
    for (unsigned note = 0; note < NOTE_END; note++)
        if (wanted(watch, note, AT_EXIT))
            return true;
    return false;
}

/* Copy a file, up to its limit. Returns how much, or -errno of the memfd. */
static ssize_t copy(int from, int to)
{
    static char bytes[16 * 1024];
    size_t copied = 0;
    while (copied < NOTE_BYTES_MAX) {
        size_t room = NOTE_BYTES_MAX - copied;
        ssize_t got = read(from, bytes, room < sizeof bytes ? room : sizeof bytes);
        if (got <= 0)
            break; /* ESRCH: it was killed once more, and is going */
        if (write(to, bytes, (size_t)got) != got)
            return -ENOSPC;
        copied += (size_t)got;
    }
    return (ssize_t)copied;
}

static int take(const struct watch *watch, const char *directory, unsigned note)
{
    char path[PATH_BYTES * 2];
    if (snprintf(path, sizeof path, "%s/%s", directory, notes[note].file) >= (int)sizeof path)
        return 0;
    cleanup_fd int from = openat(watch->box->proc, path, O_RDONLY | O_CLOEXEC);
    if (from < 0)
        return 0;
    struct wire_note head = {.note = note};
    off_t start = lseek(watch->notes_fd, 0, SEEK_CUR);
    if (start < 0 || write(watch->notes_fd, &head, sizeof head) != (ssize_t)sizeof head)
        return -ENOSPC;
    ssize_t copied = copy(from, watch->notes_fd);
    if (copied < 0)
        return (int)copied;
    head.length = (uint32_t)copied;
    return pwrite(watch->notes_fd, &head, sizeof head, start) == (ssize_t)sizeof head ? 0
                                                                                      : -ENOSPC;
}

static int take_all(const struct watch *watch, const char *directory, int moment)
{
    int error = 0;
    for (unsigned note = 0; error == 0 && note < NOTE_END; note++)
        if (wanted(watch, note, moment))
            error = take(watch, directory, note);
    return error;
}

/* Does the status of a thread show memory? Its name, a line before, cannot hold a newline. */
static bool has_memory(int tasks, const char *thread)
{
    char path[PATH_BYTES], text[4096];
    if (snprintf(path, sizeof path, "%s/status", thread) >= (int)sizeof path)
        return false;
    cleanup_fd int fd = openat(tasks, path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    text[got > 0 ? got : 0] = 0;
    return strstr(text, "\nVmHWM:") != NULL;
}

/* Find a thread that has memory still: they share it. Returns whether there are 0, 1 or more.
 */
static int find_threads(const struct watch *watch, char directory[PATH_BYTES])
{
    _Alignas(struct linux_dirent64) char entries[1024];
    int found = 0;
    (void)snprintf(directory, PATH_BYTES, "%d/task", watch->report->pid_inside);
    cleanup_fd int tasks =
        openat(watch->box->proc, directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    long size = tasks < 0 ? 0 : syscall(SYS_getdents64, tasks, entries, sizeof entries);
    for (long at = 0; at < size && found < 2;) {
        const struct linux_dirent64 *entry = (const void *)(entries + at);
        at += entry->length;
        if (entry->name[0] == '.' || !has_memory(tasks, entry->name))
            continue;
        found++;
        (void)snprintf(directory, PATH_BYTES, "%d/task/%.20s", watch->report->pid_inside,
                       entry->name);
    }
    return found;
}

bool notes_others(const struct watch *watch)
{
    char directory[PATH_BYTES];
    return find_threads(watch, directory) > 1;
}

int notes_take_at_exit(const struct watch *watch, bool first_ended)
{
    char directory[PATH_BYTES];
    (void)snprintf(directory, sizeof directory, "%d", watch->report->pid_inside);
    if (first_ended && find_threads(watch, directory) == 0)
        return 0;
    if (ftruncate(watch->notes_fd, 0) < 0 || lseek(watch->notes_fd, 0, SEEK_SET) < 0)
        return -errno;
    return take_all(watch, directory, AT_EXIT);
}

int notes_take_when_gone(const struct watch *watch)
{
    char directory[PATH_BYTES];
    (void)snprintf(directory, sizeof directory, "%d", watch->report->pid_inside);
    return take_all(watch, directory, AT_GONE);
}
