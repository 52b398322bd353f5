/* Operations on namespaces: entered, left, and given what belongs to them. */
#define _GNU_SOURCE
#include "steps.h"
#include "sys.h"

#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

/* arg: fd of a namespace, its CLONE_NEW* */
int op_setns(const struct step *step, struct context *context)
{
    if (step->arg[0] < 0)
        return -EBADF;
    return (int)sys_result(setns(context->fds[step->arg[0]], (int)step->arg[1]));
}

/* arg: CLONE_NEW* */
int op_unshare(const struct step *step, struct context *context)
{
    (void)context;
    return (int)sys_result(syscall(SYS_unshare, (unsigned long)step->arg[0]));
}

/*
 * arg: 1 if programs need it too, else it is closed when the sandbox is made. Keep the
 * caller's /proc, which cannot be reached any more when its root is left.
 */
int op_host_proc(const struct step *step, struct context *context)
{
    if (context->places)
        context->places->programs_use_proc = step->arg[0];
    context->host_proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    return context->host_proc < 0 ? -errno : 0;
}

/*
 * args: seconds and ns for CLOCK_MONOTONIC, the same for CLOCK_BOOTTIME. For the time
 * namespace that our children will be in: it can be set as long as it has none
 * (time_namespaces(7)).
 */
int op_time_offsets(const struct step *step, struct context *context)
{
    char text[128];
    int length = snprintf(text, sizeof text, "monotonic %lld %lld\nboottime %lld %lld\n",
                          (long long)step->arg[0], (long long)step->arg[1],
                          (long long)step->arg[2], (long long)step->arg[3]);
    if (length < 0 || (size_t)length >= sizeof text || !context->places)
        return -EINVAL;
    cleanup_fd int fd = open_own(context, "self/timens_offsets");
    if (fd < 0)
        return fd;
    context->places->time_namespace = true;
    context->places->clock_shift_ns = step->arg[0] * NS_PER_S + step->arg[1];
    return write_text(fd, text, (size_t)length);
}

int op_hostname(const struct step *step, struct context *context)
{
    (void)context;
    return (int)sys_result(sethostname(step->strings[0], strlen(step->strings[0])));
}

int op_domainname(const struct step *step, struct context *context)
{
    (void)context;
    return (int)sys_result(
        syscall(SYS_setdomainname, step->strings[0], strlen(step->strings[0])));
}

/* strings: path below /proc/sys, value. What is there belongs to our namespaces. */
int op_sysctl(const struct step *step, struct context *context)
{
    (void)context;
    char path[256];
    int length = snprintf(path, sizeof path, "/proc/sys/%s", step->strings[0]);
    if (length < 0 || (size_t)length >= sizeof path)
        return -ENAMETOOLONG;
    cleanup_fd int fd = open(path, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    return write_text(fd, step->strings[1], strlen(step->strings[1]));
}

/* The loopback interface of a new network namespace is down: set it up. */
int op_loopback(const struct step *step, struct context *context)
{
    (void)step;
    (void)context;
    struct ifreq request = {.ifr_name = "lo"};
    cleanup_fd int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &request) < 0)
        return -errno;
    request.ifr_flags |= IFF_UP;
    return ioctl(fd, SIOCSIFFLAGS, &request) < 0 ? -errno : 0;
}
