/*
 * keeper: the helper process of run-sandboxed. Theory of operation:
 *
 *   grader (Python) -- control socket, fd 3 -- keeper -- program
 *                                                 \----- init
 *
 * keeper   one per sandbox, started by posix_spawn; outside the pid namespace,
 *          inside all others; forks each program, watches it, kills and reaps it.
 * init     pid 1 of the sandbox (init.c); has made its mounts; reaps orphans.
 * program  what the user asked for; pid 2 or later; never trusted.
 *
 * A request (wire.h) carries a plan: a list of steps (plan.c decodes, steps.c
 * executes), each one or a few system calls. START makes a sandbox (box.c), RUN
 * runs a program in it (run.c, watch.c, limit.c). One thread, no allocation between fork
 * and exec, no text to parse but the kernel's own.
 *
 * Death runs downhill: the control socket's end ends the keeper, the keeper's
 * end ends init (its parent-death signal and its socket), and init's end makes
 * the kernel kill whatever is left in the pid namespace.
 */
#define _GNU_SOURCE
#include "listener.h"
#include "run.h"
#include "sys.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>

static struct box box = {.init_pid = -1,
                         .init_pidfd = -1,
                         .init_socket = -1,
                         .proc = -1,
                         .children = -1,
                         .numbers = -1,
                         .grader = -1};

static void describe(void)
{
    const char *separator = "";
    printf("{\"version\": %d, \"magic\": %u, \"locations\": {", WIRE_VERSION, WIRE_MAGIC);
#define SHOW(name, number) printf("%s\"" #name "\": %d", separator, number), separator = ", ";
    LOCATIONS(SHOW)
#undef SHOW
    printf("}, \"ops\": [");
    separator = "";
#define SHOW(name, payload, strings, fd_args)                                           \
    printf("%s[\"" #name "\", \"" #payload "\", %d, %d]", separator, strings, fd_args), \
        separator = ", ";
    OPS(SHOW)
#undef SHOW
    printf("], \"phases\": [");
    separator = "";
#define SHOW(name) printf("%s\"" #name "\"", separator), separator = ", ";
    PHASES(SHOW)
    printf("], \"causes\": [");
    separator = "";
    CAUSES(SHOW)
    printf("], \"details\": [");
    separator = "";
    DETAILS(SHOW)
#undef SHOW
    printf("], \"notes\": [");
    separator = "";
#define SHOW(name, file, moment) printf("%s\"" #name "\"", separator), separator = ", ";
    NOTES(SHOW)
#undef SHOW
    printf("], \"sizes\": {\"plan\": %zu, \"step\": %zu, \"request\": %zu, \"reply\": %zu}}\n",
           sizeof(struct wire_plan), sizeof(struct wire_step), sizeof(struct wire_request),
           sizeof(struct wire_reply));
}

/*
 * Become independent of whoever started us: no inherited fds, no ignored or
 * blocked signals (a program would inherit them), no terminal that could stop or
 * interrupt us; where its session is kept for the program, what a terminal sends is
 * blocked. Each program's mask is set before its exec.
 */
static int settle(bool keep_session)
{
    static const int of_terminals[] = {SIGHUP, SIGINT, SIGQUIT, SIGTSTP, SIGTTIN, SIGTTOU};
    sigset_t all, blocked;
    sigfillset(&all);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGPIPE);
    sigaddset(&blocked, SIGXFSZ); /* the caller's limit on the size of files: EFBIG */
    for (unsigned i = 0; keep_session && i < sizeof of_terminals / sizeof *of_terminals; i++)
        sigaddset(&blocked, of_terminals[i]);
    for (int number = 1; number <= KERNEL_SIGNALS; number++) {
        /* Not signal(3), which refuses those that a libc keeps for itself. EINVAL: KILL, STOP.
         */
        const struct kernel_sigaction by_default = {0};
        (void)syscall(SYS_rt_sigaction, number, &by_default, NULL, sizeof by_default.mask);
    }
    if (sigprocmask(SIG_UNBLOCK, &all, NULL) < 0 || sigprocmask(SIG_BLOCK, &blocked, NULL) < 0)
        return -errno;
    if (!keep_session)
        (void)setsid();                                     /* EPERM: we lead a group already */
    (void)syscall(SYS_close_range, CONTROL_FD + 1, ~0u, 0); /* ENOSYS: they are close-on-exec */
    if (fcntl(CONTROL_FD, F_SETFD, FD_CLOEXEC) < 0)
        return -errno;
    return listener_reserve();
}

/*
 * The end of the control socket is the grader's end only while no fork of it holds
 * a copy, so its process is watched too. Called while it waits for us, or is dead.
 */
static int watch_grader(void)
{
    pid_t grader = getppid();
    int pidfd = (int)syscall(SYS_pidfd_open, grader, 0);
    if (getppid() != grader) {
        close_fd(&pidfd);
        return -ESRCH; /* it has died already */
    }
    box.grader = pidfd; /* -1: Linux before 5.3 */
    return 0;
}

static bool grader_asks(void)
{
    struct pollfd fds[2] = {{.fd = CONTROL_FD, .events = POLLIN},
                            {.fd = box.grader, .events = POLLIN}};
    while (poll(fds, 2, -1) < 0)
        if (errno != EINTR)
            return false;
    return fds[1].revents == 0;
}

static void clean(void)
{
    if (box.started && !box.damaged)
        box_clean(&box);
    box.unclean = false;
}

/* A request to a box that is as it should be. Returns -1 when the keeper is to end. */
static int serve_box(struct frame *frame, struct report *report, struct wire_reply *reply,
                     int *opened)
{
    switch (frame->request.kind) {
    case REQUEST_RUN:
        box.unclean = true;
        return run_program(&box, frame, CONTROL_FD, report, reply);
    case REQUEST_FILES:
        *opened = box_files(&box, frame, report, reply);
        return 0;
    case REQUEST_PING:
        box_ping(frame, &box, reply);
        return 0;
    default:
        return 0; /* it stays refused */
    }
}

/* What is not answered. Returns whether it was that. */
static bool take_note(struct frame *frame)
{
    switch (frame->request.kind) {
    case REQUEST_KILL:
    case REQUEST_ANSWER:
        return true; /* it came too late: the run has ended by itself */
    case REQUEST_KEEP:
        return kept_take(&box.kept, frame) == 0;
    case REQUEST_CLEAN:
        clean();
        return true;
    default:
        return false;
    }
}

static int answer(const struct wire_reply *reply, const struct wire_request *request,
                  int opened)
{
    bool measured = request->kind == REQUEST_RUN && reply->kind == REPLY_EXITED;
    if (opened >= 0)
        return reply_send_fd(CONTROL_FD, reply, opened);
    return reply_send(CONTROL_FD, reply, box.readings.text, measured ? box.readings.size : 0);
}

/* Returns 0, or -1 when the keeper is to end. */
static int serve(struct frame *frame, struct report *report)
{
    const struct wire_request *request = &frame->request;
    struct wire_reply reply = reply_make(REPLY_REFUSED, request->run_id);
    cleanup_fd int opened = -1;
    int result = 0;
    if (take_note(frame))
        return 0;
    if (request->kind == REQUEST_RUN && box.unclean)
        clean();
    if (request->kind == REQUEST_START && !box.started)
        result = box_start(&box, frame, report, &reply);
    else if (box.damaged) {
        reply = box.damage;
        reply.run_id = request->run_id;
    } else if (box.started)
        result = serve_box(frame, report, &reply, &opened);
    if (answer(&reply, request, opened) < 0)
        return -1;
    run_release(&box);
    if (result == 0 && request->kind == REQUEST_RUN && !(request->flags & REQUEST_CLEAN_LATER))
        clean(); /* while the grader reads the reply */
    return result;
}

int main(int argc, char **argv)
{
    static struct frame frame;
    if (argc == 2 && strcmp(argv[1], "--describe") == 0) {
        describe();
        return fflush(stdout) == 0 ? 0 : 1;
    }
    bool keep_session = argc > 1 && strcmp(argv[1], "--retain-session") == 0;
    /* One more word is the sandbox's name, for whoever looks for it in /proc. */
    if (argc > 2 + keep_session || fcntl(CONTROL_FD, F_GETFD) < 0) {
        (void)fprintf(stderr,
                      "keeper: a part of run-sandboxed, which starts it with a socket\n");
        return 2;
    }
    struct report *report =
        mmap(NULL, sizeof *report, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (report == MAP_FAILED || settle(keep_session) < 0 || watch_grader() < 0)
        return 1;
    while (grader_asks() && frame_receive(CONTROL_FD, &frame) > 0) {
        int result = serve(&frame, report);
        frame_release(&frame);
        if (result < 0)
            break;
    }
    box_end(&box);
    return 0;
}
