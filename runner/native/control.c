/*
 * Receiving requests and sending replies. A frame that is too long, loses fds,
 * or carries a plan that could still change is refused as a whole.
 */
#define _GNU_SOURCE
#include "control.h"

#include "sys.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#ifndef F_GET_SEALS
#define F_GET_SEALS 1034
#define F_SEAL_SHRINK 2
#define F_SEAL_GROW 4
#define F_SEAL_WRITE 8
#endif

/* There is at most one header: the socket passes no credentials. */
static void take_fds(struct frame *frame, struct msghdr *message)
{
    const struct cmsghdr *header = CMSG_FIRSTHDR(message);
    if (!header || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
        return;
    size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    if (count > WIRE_FDS_MAX)
        count = WIRE_FDS_MAX; /* the kernel sends no more than that */
    memcpy(frame->fds, CMSG_DATA(header), count * sizeof(int));
    frame->fd_count = (unsigned)count;
}

/* Map the plan that came as the first fd. Sealed, or it could change while it is checked. */
static int map_plan(struct frame *frame)
{
    if (frame->fd_count == 0)
        return -EPROTO;
    cleanup_fd int fd = frame->fds[0];
    frame->fd_count--;
    memmove(frame->fds, frame->fds + 1, frame->fd_count * sizeof(int));
    const int wanted = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
    struct stat status;
    size_t size = frame->request.plan_bytes;
    int seals =
        fcntl(fd, F_GET_SEALS); /* -1 for what cannot be sealed, where all bits are set */
    if (seals < 0 || (seals & wanted) != wanted || fstat(fd, &status) < 0 ||
        status.st_size != (off_t)size || size == 0 || size > WIRE_PLAN_MAX)
        return -EPROTO;
    void *bytes = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (bytes == MAP_FAILED)
        return -errno;
    frame->plan = bytes;
    frame->mapped = true;
    return 0;
}

static int frame_check(struct frame *frame, size_t inline_bytes)
{
    const struct wire_request *request = &frame->request;
    if (request->magic != WIRE_MAGIC || request->version != WIRE_VERSION)
        return -EPROTO;
    if (request->flags & REQUEST_PLAN_IN_FD)
        return inline_bytes ? -EPROTO : map_plan(frame);
    frame->plan = frame->bytes;
    return inline_bytes == request->plan_bytes ? 0 : -EPROTO;
}

int frame_receive(int control, struct frame *frame)
{
    frame->fd_count = frame->lent = 0;
    frame->mapped = false;
    struct iovec parts[2] = {{&frame->request, sizeof frame->request},
                             {frame->bytes, sizeof frame->bytes}};
    _Alignas(struct cmsghdr) char ancillary[CMSG_SPACE(WIRE_FDS_MAX * sizeof(int))];
    struct msghdr message = {
        .msg_iov = parts,
        .msg_iovlen = 2,
        .msg_control = ancillary,
        .msg_controllen = sizeof ancillary,
    };
    ssize_t size;
    do
        size = recvmsg(control, &message, MSG_CMSG_CLOEXEC);
    while (size < 0 && errno == EINTR);
    if (size <= 0)
        return size < 0 ? -errno : 0;
    take_fds(frame, &message);
    int result = -EPROTO;
    if (!(message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) &&
        (size_t)size >= sizeof frame->request)
        result = frame_check(frame, (size_t)size - sizeof frame->request);
    if (result < 0) {
        frame_release(frame);
        return result;
    }
    return 1;
}

void frame_release(struct frame *frame)
{
    for (unsigned i = 0; i < frame->fd_count - frame->lent; i++)
        close_fd(&frame->fds[i]);
    frame->fd_count = frame->lent = 0;
    if (frame->mapped)
        (void)munmap((void *)(uintptr_t)frame->plan, frame->request.plan_bytes);
    frame->mapped = false;
}

void frame_move(struct frame *to, struct frame *from)
{
    memcpy(to, from, sizeof *to);
    if (!to->mapped)
        to->plan = to->bytes;
    from->fd_count = from->lent = 0;
    from->mapped = false;
}

struct wire_reply reply_make(enum reply_kind kind, uint64_t run_id)
{
    return (struct wire_reply){
        .magic = WIRE_MAGIC,
        .version = WIRE_VERSION,
        .kind = (uint16_t)kind,
        .run_id = run_id,
        .index = -1,
        .step = -1,
        .memory_bytes = -1,
        .stream_bytes = {-1, -1},
        .events = -1,
    };
}

int reply_send(int control, const struct wire_reply *reply, const void *tail, size_t size)
{
    struct iovec parts[2] = {{(void *)(uintptr_t)reply, sizeof *reply},
                             {(void *)(uintptr_t)tail, size}};
    const struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    ssize_t sent;
    do
        sent = sendmsg(control, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : 0;
}

int reply_send_fd(int control, const struct wire_reply *reply, int fd)
{
    struct iovec part = {(void *)(uintptr_t)reply, sizeof *reply};
    _Alignas(struct cmsghdr) char ancillary[CMSG_SPACE(sizeof fd)] = {0};
    struct msghdr message = {
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = ancillary,
        .msg_controllen = sizeof ancillary,
    };
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    *header = (struct cmsghdr){
        .cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    ssize_t sent;
    do
        sent = sendmsg(control, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : 0;
}
