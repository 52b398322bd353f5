// Use memory of one kind and end: use_memory KIND SIZE-OR-FILE. What it touches is known
// exactly.

#define _GNU_SOURCE

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096 };

static void touch(volatile char *memory, size_t size)
{
    for (size_t at = 0; at < size; at += PAGE) {
        memory[at] = 1;
    }
}

static void *map(size_t size, int protection, int flags, int fd)
{
    void *memory = mmap(NULL, size, protection, flags, fd, 0);
    if (memory == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    return memory;
}

static void use_anonymous(size_t size)
{
    touch(map(size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1), size);
}

static void use_shared(size_t size)
{
    int fd = memfd_create("shared", MFD_CLOEXEC);
    if (ftruncate(fd, (off_t)size) != 0) {
        exit(1);
    }
    touch(map(size, PROT_READ | PROT_WRITE, MAP_SHARED, fd), size);
}

static void use_children(size_t size)
{
    enum { CHILDREN = 4 };
    int ready[2], done[2];
    if (pipe(ready) != 0 || pipe(done) != 0) {
        exit(1);
    }
    for (int i = 0; i < CHILDREN; i++) {
        if (fork() == 0) {
            close(done[1]);
            use_anonymous(size / CHILDREN);
            char byte = 0;
            _exit(write(ready[1], &byte, 1) != 1 || read(done[0], &byte, 1) != 0);
        }
    }
    char bytes[CHILDREN];
    for (int had = 0; had < CHILDREN; had += (int)read(ready[0], bytes, CHILDREN)) {
    }
    close(done[1]);
    while (wait(NULL) > 0) {
    }
}

static void write_file(const char *path, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    static const char page[PAGE] = {1};
    for (size_t at = 0; at < size; at += PAGE) {
        if (write(fd, page, PAGE) != PAGE) {
            perror(path);
            exit(1);
        }
    }
}

static void map_file(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    if (fd < 0 || fstat(fd, &status) != 0) {
        perror(path);
        exit(1);
    }
    volatile const char *memory = map((size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd);
    for (off_t at = 0; at < status.st_size; at += PAGE) {
        (void)memory[at];
    }
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        return 2;
    }
    const char *kind = argv[1];
    size_t size = strtoul(argv[2], NULL, 10);
    if (strcmp(kind, "anonymous") == 0) {
        use_anonymous(size);
    } else if (strcmp(kind, "shared") == 0) {
        use_shared(size);
    } else if (strcmp(kind, "children") == 0) {
        use_children(size);
    } else if (strcmp(kind, "tmpfs") == 0) {
        write_file("/tmp/file", size);
    } else if (strcmp(kind, "write") == 0) {
        write_file("/place/written", size);
    } else if (strcmp(kind, "map") == 0) {
        map_file(argv[2]);
    } else {
        return 2;
    }
    return 0;
}
