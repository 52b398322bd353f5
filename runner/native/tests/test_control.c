/*
 * frame_receive over a real socket: what is a frame arrives whole, what is none
 * is refused, and no fd that came with either stays open.
 */
#define _GNU_SOURCE
#include "control.h"
#include "sys.h"

#include "tap.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

enum { GRADER, KEEPER };

static int control[2];
static struct frame frame;

static int fds_open(void)
{
    DIR *directory = opendir("/proc/self/fd");
    if (!directory)
        bail_out("/proc/self/fd");
    int count = 0;
    while (readdir(directory))
        count++;
    (void)closedir(directory);
    return count - 3; /* ., .. and the directory's own */
}

static struct wire_request request_of(uint32_t plan_bytes)
{
    return (struct wire_request){
        .magic = WIRE_MAGIC,
        .version = WIRE_VERSION,
        .kind = REQUEST_RUN,
        .run_id = 0x0123456789abcdef,
        .plan_bytes = plan_bytes,
    };
}

/* Send one message; the fds stay ours. */
static void send_frame(const void *head, size_t head_size, const void *plan, size_t plan_size,
                       const int *fds, size_t fd_count)
{
    struct iovec parts[2] = {{(void *)(uintptr_t)head, head_size},
                             {(void *)(uintptr_t)plan, plan_size}};
    _Alignas(struct cmsghdr) char ancillary[CMSG_SPACE(sizeof(int) * WIRE_FDS_MAX)];
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    if (fd_count) {
        message.msg_control = ancillary;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
        memcpy(CMSG_DATA(header), fds, sizeof(int) * fd_count);
    }
    if (sendmsg(control[GRADER], &message, 0) != (ssize_t)(head_size + plan_size))
        bail_out("sendmsg of %zu and %zu bytes, %zu fds", head_size, plan_size, fd_count);
}

static void send_request(const struct wire_request *request, const void *plan, size_t size,
                         const int *fds, size_t fd_count)
{
    send_frame(request, sizeof *request, plan, size, fds, fd_count);
}

/* Plans that are mapped: each is a line of /proc/self/maps. */
static int plans_mapped(void)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    if (!maps)
        bail_out("/proc/self/maps");
    char line[512];
    int count = 0;
    while (fgets(line, sizeof line, maps))
        count += strstr(line, "memfd:plan") != NULL;
    (void)fclose(maps);
    return count;
}

/* Receive what has been sent: is the result this, and is nothing left once it is released? */
static bool receives(int wanted)
{
    int before = fds_open();
    memset(&frame, 0xa5, sizeof frame); /* whatever was there before */
    int result = frame_receive(control[KEEPER], &frame);
    bool refused_whole = result > 0 || (frame.fd_count == 0 && !frame.mapped);
    frame_release(&frame);
    return result == wanted && refused_whole && fds_open() == before && plans_mapped() == 0;
}

static void test_whole_frames(void)
{
    static uint8_t plan[WIRE_FRAME_MAX];
    for (size_t i = 0; i < sizeof plan; i++)
        plan[i] = (uint8_t)(i * 7);
    static const size_t sizes[] = {0, 1, 1000, WIRE_FRAME_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct wire_request request = request_of((uint32_t)sizes[i]);
        send_request(&request, plan, sizes[i], NULL, 0);
        int result = frame_receive(control[KEEPER], &frame);
        check(result == 1 && memcmp(&frame.request, &request, sizeof request) == 0 &&
                  memcmp(frame.plan, plan, sizes[i]) == 0 && frame.fd_count == 0,
              "whole: %zu bytes of plan arrive as sent", sizes[i]);
        frame_release(&frame);
    }
}

static void test_fds(void)
{
    static const size_t counts[] = {0, 1, 2, 16, WIRE_FDS_MAX};
    int before = fds_open();
    for (size_t n = 0; n < sizeof counts / sizeof *counts; n++) {
        int sent[WIRE_FDS_MAX];
        for (size_t i = 0; i < counts[n]; i++)
            sent[i] = i % 2 ? STDIN_FILENO : control[KEEPER];
        struct wire_request request = request_of(0);
        send_request(&request, NULL, 0, sent, counts[n]);
        bool right = frame_receive(control[KEEPER], &frame) == 1 && frame.fd_count == counts[n];
        for (size_t i = 0; right && i < counts[n]; i++) {
            struct stat got, wanted;
            right = fstat(frame.fds[i], &got) == 0 && fstat(sent[i], &wanted) == 0 &&
                    got.st_ino == wanted.st_ino && got.st_dev == wanted.st_dev &&
                    fcntl(frame.fds[i], F_GETFD) == FD_CLOEXEC;
        }
        right = right && fds_open() == before + (int)counts[n];
        frame_release(&frame);
        frame_release(&frame); /* a second time does nothing */
        check(right && fds_open() == before,
              "fds: %zu arrive in order, close-on-exec, and are released", counts[n]);
    }
}

static void test_malformed(void)
{
    const int fds[] = {STDIN_FILENO, control[KEEPER]};
    static const uint8_t plan[WIRE_FRAME_MAX + 1];
    struct wire_request right = request_of(4), request = right;
    send_frame(&request, sizeof request - 1, NULL, 0, fds, 2);
    check(receives(-EPROTO), "malformed: a frame that is cut short");
    send_frame(&request, 1, NULL, 0, fds, 2);
    check(receives(-EPROTO), "malformed: a frame of one byte");
    request.plan_bytes = WIRE_FRAME_MAX + 1;
    send_request(&request, plan, WIRE_FRAME_MAX + 1, fds, 2);
    check(receives(-EPROTO), "malformed: a frame that is too long");
    request.plan_bytes = WIRE_FRAME_MAX;
    send_request(&request, plan, WIRE_FRAME_MAX + 1, fds, 2);
    check(receives(-EPROTO), "malformed: a frame that would fit if it were cut");
    request = right;
    send_request(&request, plan, 3, fds, 2);
    check(receives(-EPROTO), "malformed: a plan shorter than said");
    send_request(&request, plan, 5, fds, 2);
    check(receives(-EPROTO), "malformed: a plan longer than said");
    request.magic ^= 1;
    send_request(&request, plan, 4, fds, 2);
    check(receives(-EPROTO), "malformed: another magic");
    request = right;
    request.version++;
    send_request(&request, plan, 4, fds, 2);
    check(receives(-EPROTO), "malformed: another version");
    send_request(&right, plan, 4, fds, 2);
    check(receives(1), "malformed: and what is right still arrives");
}

/* A memfd of so many bytes with these seals. */
static int memfd_of(size_t size, int seals)
{
    int fd = memfd_create("plan", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, (off_t)size) < 0 || fcntl(fd, F_ADD_SEALS, seals) < 0)
        bail_out("memfd of %zu bytes", size);
    return fd;
}

enum { SEALED = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE };

static bool receives_memfd(size_t said, size_t size, int seals, int wanted)
{
    struct wire_request request = request_of((uint32_t)said);
    request.flags = REQUEST_PLAN_IN_FD;
    int fds[] = {memfd_of(size, seals), STDIN_FILENO};
    send_request(&request, NULL, 0, fds, 2);
    (void)close(fds[0]);
    return receives(wanted);
}

static void test_memfd(void)
{
    check(receives_memfd(4096, 4096, SEALED, 1), "memfd: a sealed one is mapped");
    check(receives_memfd(WIRE_PLAN_MAX, WIRE_PLAN_MAX, SEALED, 1),
          "memfd: the largest is mapped");
    check(receives_memfd(WIRE_PLAN_MAX + 1, WIRE_PLAN_MAX + 1, SEALED, -EPROTO),
          "memfd: one that is too large is refused");
    check(receives_memfd(4096, 4096, 0, -EPROTO), "memfd: one without seals is refused");
    static const int seals[] = {F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE};
    bool refused = true;
    for (size_t i = 0; i < sizeof seals / sizeof *seals; i++)
        refused = refused && receives_memfd(4096, 4096, SEALED & ~seals[i], -EPROTO);
    check(refused, "memfd: one without any one seal is refused");
    check(receives_memfd(4095, 4096, SEALED, -EPROTO), "memfd: a larger one is refused");
    check(receives_memfd(4097, 4096, SEALED, -EPROTO), "memfd: a smaller one is refused");
    check(receives_memfd(0, 0, SEALED, -EPROTO), "memfd: an empty one is refused");
}

static void test_memfd_content(void)
{
    static const uint8_t plan[] = "a plan";
    int fd = memfd_create("plan", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || write(fd, plan, sizeof plan) != sizeof plan ||
        fcntl(fd, F_ADD_SEALS, SEALED) < 0)
        bail_out("memfd");
    struct wire_request request = request_of(sizeof plan);
    request.flags = REQUEST_PLAN_IN_FD;
    int fds[] = {fd, control[KEEPER]};
    send_request(&request, NULL, 0, fds, 2);
    (void)close(fd);
    struct stat got, wanted;
    bool right = frame_receive(control[KEEPER], &frame) == 1 && frame.mapped &&
                 memcmp(frame.plan, plan, sizeof plan) == 0 && frame.fd_count == 1 &&
                 fstat(frame.fds[0], &got) == 0 && fstat(control[KEEPER], &wanted) == 0 &&
                 got.st_ino == wanted.st_ino;
    check(right, "memfd: the plan is its content, and the other fds follow");
    static struct frame kept;
    frame_move(&kept, &frame);
    check(frame.fd_count == 0 && !frame.mapped && kept.fd_count == 1 &&
              memcmp(kept.plan, plan, sizeof plan) == 0,
          "move: a mapped plan goes along");
    frame_release(&kept);
    request = request_of(sizeof plan);
    send_request(&request, plan, sizeof plan, NULL, 0);
    right = frame_receive(control[KEEPER], &frame) == 1;
    frame_move(&kept, &frame);
    memset(&frame, 0, sizeof frame);
    check(right && memcmp(kept.plan, plan, sizeof plan) == 0,
          "move: an inline plan goes along");
    frame_release(&kept);
}

static void test_no_memfd(void)
{
    struct wire_request request = request_of(4096);
    request.flags = REQUEST_PLAN_IN_FD;
    send_request(&request, NULL, 0, NULL, 0);
    check(receives(-EPROTO), "memfd: none at all is refused");
    const int other[] = {STDIN_FILENO};
    int fd = memfd_of(4096, SEALED);
    send_request(&request, "x", 1, &fd, 1);
    check(receives(-EPROTO), "memfd: bytes beside it are refused");
    (void)close(fd);
    send_request(&request, NULL, 0, other, 1);
    check(receives(-EPROTO), "memfd: what is no file is refused");
    /* F_GET_SEALS fails here, and all bits of -1 are set. */
    char path[] = "/tmp/run-sandboxed-test-XXXXXX";
    fd = mkstemp(path);
    if (fd < 0 || unlink(path) < 0 || ftruncate(fd, 4096) < 0)
        bail_out("mkstemp");
    send_request(&request, NULL, 0, &fd, 1);
    check(receives(-EPROTO), "memfd: a file that cannot be sealed is refused");
    (void)close(fd);
}

/* Only half of the fds find room, so the kernel says MSG_CTRUNC; those that did are closed. */
static int receive_with_few_fds(const void *argument)
{
    (void)argument;
    int sent[32];
    for (int i = 0; i < 32; i++)
        sent[i] = STDIN_FILENO;
    struct wire_request request = request_of(0);
    send_request(&request, NULL, 0, sent, 32);
    int before = fds_open();
    const struct rlimit some = {.rlim_cur = (rlim_t)before + 16,
                                .rlim_max = (rlim_t)before + 16};
    if (setrlimit(RLIMIT_NOFILE, &some) < 0)
        return 1;
    return receives(-EPROTO) ? 0 : 2;
}

static void test_end(void)
{
    check(reply_send(control[KEEPER], &(struct wire_reply){.kind = REPLY_EXITED}, NULL, 0) == 0,
          "reply: is sent");
    struct wire_reply reply;
    check(recv(control[GRADER], &reply, sizeof reply, MSG_TRUNC) == sizeof reply &&
              reply.kind == REPLY_EXITED,
          "reply: arrives as one message");
    (void)close(control[GRADER]);
    check(receives(0), "end: a closed socket is the end");
    check(reply_send(control[KEEPER], &reply, NULL, 0) == -EPIPE,
          "end: a reply is EPIPE, no signal");
    check(frame_receive(-1, &frame) == -EBADF, "end: a failing recvmsg is its errno");
}

int main(void)
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) < 0)
        bail_out("socketpair");
    int before = fds_open();
    test_whole_frames();
    test_fds();
    test_malformed();
    test_memfd();
    test_memfd_content();
    test_no_memfd();
    check(in_child(receive_with_few_fds, NULL) == 0, "fds: a frame that lost some is refused");
    check(fds_open() == before, "no fd is left open");
    test_end();
    return finish();
}
