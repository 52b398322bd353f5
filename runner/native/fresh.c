/*
 * What a run may have left is found by looking, and replaced only if there is
 * something: a look takes a microsecond, a new tmpfs or IPC namespace longer than
 * a whole run of a small program. The keeper looks after each run, when it has
 * answered.
 */
#define _GNU_SOURCE
#include "steps.h"
#include "sys.h"

#include <sched.h>
#include <sys/ipc.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/statfs.h>
#include <sys/xattr.h>

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
 * Give the next run an empty tmpfs: mount a new one if the old one was used.
 * arg: flags, number of the tmpfs; strings: target, data. The first time, only
 * look: it has just been mounted.
 */
int op_keep_fresh(const struct step *step, struct context *context)
{
    if (!context->places || step->arg[1] < 0 || step->arg[1] >= WIRE_SLOTS_MAX)
        return -EINVAL;
    struct fresh *fresh = &context->places->fresh[step->arg[1]];
    const char *target = step->strings[0];
    struct stat now;
    if (stat(target, &now) < 0)
        return -errno;
    if (fresh->recorded) {
        if (untouched(&now, &fresh->when_mounted) &&
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
    };
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

static bool queues_used(const struct places *places)
{
    struct stat now;
    return places->queues_fd < 0 || fstat(places->queues_fd, &now) < 0 ||
           !untouched(&now, &places->queues.when_mounted);
}

/* Give the next run an empty IPC namespace: a new one if the old one was used. */
int op_fresh_ipc(const struct step *step, struct context *context)
{
    (void)step;
    struct places *places = context->places;
    if (!places)
        return -EINVAL;
    if (places->queues.recorded) {
        if (!sysv_used() && !queues_used(places))
            return 0;
        if (syscall(SYS_unshare, CLONE_NEWIPC) < 0)
            return -errno;
        close_fd(&places->queues_fd);
    }
    places->queues_fd = open_queues();
    places->queues.recorded = true;
    if (places->queues_fd >= 0 && fstat(places->queues_fd, &places->queues.when_mounted) < 0)
        return -errno;
    return 0;
}
