/*
 * The fuzz target without a fuzzer: each seed is a plan as Python sends it, so
 * it decodes; and with any one byte changed it may be refused, but not misread.
 */
#include "../fuzz/fuzz_plan.c"

#include "tap.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

/* The seed in memory of just its size, the caller's to free. */
static uint8_t *read_seed(int directory, const char *name, size_t *size)
{
    struct stat status;
    int fd = openat(directory, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0)
        bail_out("%s", name);
    *size = (size_t)status.st_size;
    uint8_t *bytes = malloc(*size ? *size : 1);
    if (!bytes || read(fd, bytes, *size) != status.st_size)
        bail_out("%s", name);
    (void)close(fd);
    return bytes;
}

static bool decodes(const uint8_t *seed, size_t size)
{
    uint8_t *bytes =
        malloc(size); /* a copy, at another alignment: the first byte is not of it */
    if (!bytes)
        bail_out("malloc");
    memcpy(bytes, seed + 1, size - 1);
    struct plan plan;
    int fault;
    int result = plan_decode(&plan, bytes, size - 1, seed[0], &fault);
    plan_free(&plan);
    free(bytes);
    return result == 0;
}

/* The target aborts, and ASan too, if a variant is misread. */
static void feed_variants(uint8_t *seed, size_t size)
{
    (void)LLVMFuzzerTestOneInput(seed, 0);
    for (size_t at = 0; at < size; at++) {
        const uint8_t right = seed[at];
        const uint8_t wrong[] = {0,          0x7f,          0xff,
                                 right ^ 1u, right ^ 0x80u, (uint8_t)(right + 1)};
        for (size_t i = 0; i < sizeof wrong; i++) {
            seed[at] = wrong[i];
            (void)LLVMFuzzerTestOneInput(seed, size);
        }
        seed[at] = right;
    }
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : "runner/native/fuzz/corpus";
    int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *entries = directory < 0 ? NULL : fdopendir(directory);
    if (!entries)
        bail_out("%s: run it from the top of the tree", path);
    int count = 0;
    for (const struct dirent *entry; (entry = readdir(entries));) {
        if (entry->d_name[0] == '.')
            continue;
        size_t size;
        uint8_t *seed = read_seed(directory, entry->d_name, &size);
        check(size > 0 && decodes(seed, size), "%s: decodes (if not: fuzz/make_corpus.py)",
              entry->d_name);
        feed_variants(seed, size);
        free(seed);
        count++;
    }
    (void)closedir(entries);
    check(count > 0, "%d seeds, each with every byte changed, are read or refused", count);
    return finish();
}
