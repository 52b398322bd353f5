/*
 * What a run may have left is found by looking, and replaced only if there is
 * something: a look takes a microsecond, a new tmpfs or IPC namespace longer than
 * a whole run of a small program. The keeper looks after each run, when it has
 * answered.
 */
#define _GNU_SOURCE
#include "steps.h"
#include "sys.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/ipc.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/statfs.h>
#include <sys/xattr.h>

/*
 * After so many runs all is made anew, whatever was done, or what the kernel numbers would
 * tell of more than that: up to 63 it numbers System V objects before it begins a new round.
 */
enum { RUNS = 60 };

static bool same_time(struct timespec a, struct timespec b)
{
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

/*
 * Any creation, removal, chmod or xattr in the root of a tmpfs changes one of
 * these; files below it need a directory in it, which changes them too. The size
 * of a tmpfs directory counts its entries, so even a change within one tick of
 * the clock shows, if it left anything.
 */
static bool untouched(const struct stat *now, const struct stat *then)
{
    return now->st_dev == then->st_dev && now->st_ino == then->st_ino &&
           now->st_mode == then->st_mode && now->st_uid == then->st_uid &&
           now->st_gid == then->st_gid && now->st_nlink == then->st_nlink &&
           now->st_size == then->st_size && same_time(now->st_ctim, then->st_ctim) &&
           same_time(now->st_mtim, then->st_mtim);
}

/*
 * A tmpfs numbers its files, and a file that never had a name leaves no other trace. So we
 * make one after each run, which has to come next to ours of the last time. 0: none can be.
 */
static ino_t number_file(const char *target)
{
    struct stat made;
    cleanup_fd int fd = open(target, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
    return fd < 0 || fstat(fd, &made) < 0 ? 0 : made.st_ino;
}

/*
 * Give the next run an empty tmpfs: mount a new one if the old one was used, and bring its
 * numbers to where those of the old one would be. arg: flags, number of the tmpfs;
 * strings: target, data. The first time, only look: it has just been mounted.
 */
int op_keep_fresh(const struct step *step, struct context *context)
{
    if (!context->places || step->arg[1] < 0 || step->arg[1] >= WIRE_SLOTS_MAX)
        return -EINVAL;
    struct fresh *fresh = &context->places->fresh[step->arg[1]];
    const char *target = step->strings[0];
    unsigned runs = 0;
    struct stat now;
    if (stat(target, &now) < 0)
        return -errno;
    if (fresh->recorded) {
        ino_t expected = fresh->number + 1;
        runs = ++fresh->runs % RUNS;
        fresh->number = number_file(target);
        if (runs && fresh->number == expected && untouched(&now, &fresh->when_mounted) &&
            listxattr(target, NULL, 0) == fresh->attributes)
            return 0;
        if (umount2(target, MNT_DETACH) < 0 ||
            mount("tmpfs", target, "tmpfs", (unsigned long)step->arg[0], step->strings[1]) <
                0 ||
            stat(target, &now) < 0)
            return -errno;
    }
    *fresh = (struct fresh){
        .recorded = true,
        .when_mounted = now,
        .attributes = listxattr(target, NULL, 0), /* a default ACL is one; -1: none can be */
        .runs = runs,
    };
    for (unsigned made = 0; made <= runs; made++)
        fresh->number = number_file(target);
    return 0;
}

int places_full(const struct plan *plan)
{
    int full = 0;
    for (unsigned i = 0; i < plan->count; i++) {
        const struct step *step = &plan->steps[i];
        struct statfs now;
        if (step->phase != PHASE_READY || step->op != OP_mount)
            continue;
        if (statfs(step->strings[1], &now) < 0)
            return -errno;
        full |= (now.f_bfree ? 0 : FULL_BYTES) | (now.f_ffree ? 0 : FULL_INODES);
    }
    return full;
}

/*
 * Is something as it was the first time? A directory of the kernel's that cannot be mounted
 * anew, such as that of terminals. arg: number of its mount; string: path.
 */
int op_unchanged(const struct step *step, struct context *context)
{
    if (!context->places || step->arg[0] < 0 || step->arg[0] >= WIRE_SLOTS_MAX)
        return -EINVAL;
    struct fresh *fresh = &context->places->fresh[step->arg[0]];
    struct stat now;
    if (stat(step->strings[0], &now) < 0)
        return -errno;
    if (fresh->recorded)
        return untouched(&now, &fresh->when_mounted) ? 0 : -ESTALE;
    *fresh = (struct fresh){.recorded = true, .when_mounted = now};
    return 0;
}

/* Mount the mqueue file system of our IPC namespace, without a place. Linux 5.2. */
static int open_queues(void)
{
    cleanup_fd int context = (int)syscall(SYS_fsopen, "mqueue", FSOPEN_CLOEXEC_FLAG);
    if (context < 0 ||
        syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE_OP, NULL, NULL, 0) < 0)
        return -1;
    return (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC_FLAG, 0);
}

/* Is there any System V object? The three calls count; see shmctl(2), semctl(2), msgctl(2). */
static bool sysv_used(void)
{
    struct shm_info memory;
    struct seminfo semaphores;
    struct msginfo queues;
    if (shmctl(0, SHM_INFO, (struct shmid_ds *)&memory) < 0 ||
        semctl(0, 0, SEM_INFO, &semaphores) < 0 ||
        msgctl(0, MSG_INFO, (struct msqid_ds *)&queues) < 0)
        return true;
    return memory.used_ids || semaphores.semusz || queues.msgpool;
}

/* Make a System V object of each kind, and none at once again. Their numbers, or -1. */
static void sysv_next(int number[3])
{
    number[0] = shmget(IPC_PRIVATE, 1, 0600 | SHM_NORESERVE);
    number[1] = semget(IPC_PRIVATE, 1, 0600);
    number[2] = msgget(IPC_PRIVATE, 0600);
    (void)shmctl(number[0], IPC_RMID, NULL); /* one that a sysctl forbids to make is -1 */
    (void)semctl(number[1], 0, IPC_RMID);
    (void)msgctl(number[2], IPC_RMID, NULL);
}

/*
 * Were System V objects made that are gone again? The kernel numbers all that it makes in a
 * namespace, and tells the next number only to who makes one. So we make one after each run:
 * unless it comes next to ours of the last time, others were made between the two, or the
 * numbers have begun anew, as they do now and then.
 */
static bool sysv_numbers_used(struct places *places)
{
    int now[3];
    bool used = false;
    sysv_next(now);
    for (int i = 0; i < 3; i++) {
        used = used || now[i] - places->sysv[i].number != places->sysv[i].stride;
        places->sysv[i].number = now[i];
    }
    return used;
}

/*
 * Note the first numbers of a new namespace; their stride changed with Linux 5.2. They are
 * then brought to where they would be in the old one without what was made in it, or they
 * would tell that there was something.
 */
static void sysv_begin(struct places *places)
{
    int first[3], second[3];
    sysv_next(first);
    sysv_next(second);
    for (int i = 0; i < 3; i++)
        places->sysv[i] = (struct sysv_traces){second[i], second[i] - first[i]};
    for (unsigned runs = 0; runs < places->ipc_runs; runs++)
        (void)sysv_numbers_used(places);
}

static bool queues_used(const struct places *places)
{
    struct stat now;
    return places->queues_fd < 0 || fstat(places->queues_fd, &now) < 0 ||
           !untouched(&now, &places->queues.when_mounted);
}

/*
 * Give the next run an empty IPC namespace: a new one if the old one was used, and now and
 * then whatever was done in it, before its numbers begin anew.
 */
int op_fresh_ipc(const struct step *step, struct context *context)
{
    (void)step;
    struct places *places = context->places;
    if (!places)
        return -EINVAL;
    if (places->queues.recorded) {
        bool due = ++places->ipc_runs == RUNS;
        if (due)
            places->ipc_runs = 0;
        if (!due && !sysv_used() && !queues_used(places) && !sysv_numbers_used(places))
            return 0;
        if (syscall(SYS_unshare, CLONE_NEWIPC) < 0)
            return -errno;
        close_fd(&places->queues_fd);
    }
    sysv_begin(places);
    places->queues_fd = open_queues();
    places->queues.recorded = true;
    if (places->queues_fd >= 0 && fstat(places->queues_fd, &places->queues.when_mounted) < 0)
        return -errno;
    return 0;
}
