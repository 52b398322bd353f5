/*
 * Kernel interfaces that a libc may not know yet, scope-bound fds, small
 * helpers. Constants are from the kernel's uapi headers; they are repeated here
 * so that the build needs none of them (musl-gcc does not find them).
 */
#pragma once

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_open_tree
#define SYS_open_tree 428
#define SYS_move_mount 429
#endif
#ifndef SYS_fsopen
#define SYS_fsopen 430
#define SYS_fsconfig 431
#define SYS_fsmount 432
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef SYS_openat2
#define SYS_openat2 437
#endif
#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif

/* How openat2(2) follows a path (Linux 5.6). */
#define RESOLVE_NO_XDEV_FLAG 0x01u
#define RESOLVE_NO_MAGICLINKS_FLAG 0x02u
#define RESOLVE_NO_SYMLINKS_FLAG 0x04u
#define RESOLVE_BENEATH_FLAG 0x08u

struct open_how_v0 {
    uint64_t flags;
    uint64_t mode;
    uint64_t resolve;
};

#define OPEN_TREE_CLONE 1u
#define OPEN_TREE_CLOEXEC 02000000u /* O_CLOEXEC */
#define AT_RECURSIVE_FLAG 0x8000u
#define MOVE_MOUNT_F_EMPTY_PATH 4u
#define MOVE_MOUNT_T_SYMLINKS_FLAG 0x10u
#define CLOSE_RANGE_CLOEXEC_FLAG 4u
#define FSOPEN_CLOEXEC_FLAG 1u
#define FSCONFIG_CMD_CREATE_OP 6u
#define FSMOUNT_CLOEXEC_FLAG 1u

#define CLONE_NEWTIME_FLAG 0x00000080u
#define CLONE_PIDFD_FLAG 0x00001000u
#define CLONE_NEWNS_FLAG 0x00020000u
#define CLONE_NEWUSER_FLAG 0x10000000u
#define CLONE_NEWPID_FLAG 0x20000000u
#define CLONE_NEW_ALL 0x7e020000u /* ns, cgroup, uts, ipc, user, pid, net; not time */

#define NS_PER_S 1000000000ll
#define MS_NS 1000000ll

/* Attributes of mount_setattr(2); the flags of mount(2) have the same numbers. */
#define MOUNT_ATTR_ALL_FLAGS 0xfu /* rdonly, nosuid, nodev, noexec */

struct mount_attr_v0 {
    uint64_t attr_set;
    uint64_t attr_clr;
    uint64_t propagation;
    uint64_t userns_fd;
};

/* getdents64(2) */
struct linux_dirent64 {
    uint64_t ino;
    int64_t off;
    unsigned short length;
    unsigned char type;
    char name[];
};

/* capget(2), capset(2) */
#define CAPABILITY_VERSION_3 0x20080522u

struct cap_header {
    uint32_t version;
    int pid;
};

struct cap_data {
    uint32_t effective, permitted, inheritable;
};

/* The kernel's own, without what a libc adds. */
enum { KERNEL_SIGNALS = 64 };

struct kernel_sigaction {
    void (*handler)(int); /* NULL is SIG_DFL */
    unsigned long flags;
    void (*restorer)(void);
    uint64_t mask;
};

/* What a system call returned, as 0 or more, or -errno. */
static inline long sys_result(long value)
{
    return value < 0 ? -(long)errno : value;
}

/* openat2(2), which a libc may not know. Returns an fd, or -errno. */
static inline int sys_openat2(int directory, const char *path, const struct open_how_v0 *how)
{
    return (int)sys_result(syscall(SYS_openat2, directory, path, how, sizeof *how));
}

/* Write a text at once, as files of the kernel's want it. Returns 0 or -errno. */
static inline int write_text(int fd, const char *text, size_t size)
{
    ssize_t written = write(fd, text, size);
    if (written < 0)
        return -errno;
    return (size_t)written == size ? 0 : -EINVAL; /* it has taken a part, and no more */
}

static inline void close_fd(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd); /* Linux frees the fd whatever close returns */
    *fd = -1;
}

#define cleanup_fd __attribute__((cleanup(close_fd)))

static inline int64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    if (clock_gettime(clock, &now) < 0)
        return 0;
    return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

static inline int64_t timeval_ns(struct timeval time)
{
    return (int64_t)time.tv_sec * NS_PER_S + (int64_t)time.tv_usec * 1000;
}

static inline struct timespec timespec_of(int64_t ns)
{
    return (struct timespec){.tv_sec = ns / NS_PER_S, .tv_nsec = ns % NS_PER_S};
}
