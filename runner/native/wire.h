/*
 * What Python and the keeper say to each other: operations, error locations,
 * frames. This header is the one source of the numbers; `keeper --describe`
 * prints them and a test compares Python's tables with it. See docs/wire.md.
 *
 * Both ends are the same machine, so integers travel in native byte order and
 * the structs are laid out without padding.
 */
#pragma once

#include <stdint.h>

#define WIRE_MAGIC 0x31585352u /* "RSX1" */
#define WIRE_VERSION 3

enum {
    WIRE_FRAME_MAX = 48 * 1024,       /* a request with its inline plan */
    WIRE_FDS_MAX = 253,               /* SCM_MAX_FD of the kernel */
    WIRE_PLAN_MAX = 16 * 1024 * 1024, /* a plan in a memfd: args and env are at most 6 MiB */
    WIRE_STEPS_MAX = 1024,
    WIRE_SLOTS_MAX = 256,
    WIRE_ARGS = 4,
    WIRE_LEDGER_MAX = 1024,
};

/* X(name, number): where a set-up can fail. 1 to 32 are go-sandbox's. */
#define LOCATIONS(X)        \
    X(CLONE, 1)             \
    X(CLOSE_WRITE, 2)       \
    X(UNSHARE_USER_READ, 3) \
    X(GETPID, 4)            \
    X(KEEP_CAPABILITY, 5)   \
    X(SETGROUPS, 6)         \
    X(SETGID, 7)            \
    X(SETUID, 8)            \
    X(DUP3, 9)              \
    X(FCNTL, 10)            \
    X(SETSID, 11)           \
    X(IOCTL, 12)            \
    X(MOUNT_ROOT, 13)       \
    X(MOUNT_TMPFS, 14)      \
    X(MOUNT_CHDIR, 15)      \
    X(MOUNT, 16)            \
    X(MOUNT_MKDIR, 17)      \
    X(PIVOT_ROOT, 18)       \
    X(UMOUNT, 19)           \
    X(UNLINK, 20)           \
    X(MOUNT_READONLY, 21)   \
    X(CHDIR, 22)            \
    X(SETRLIMIT, 23)        \
    X(SET_NO_NEW_PRIVS, 24) \
    X(DROP_CAPABILITY, 25)  \
    X(SET_CAP, 26)          \
    X(PTRACE_ME, 27)        \
    X(STOP, 28)             \
    X(SECCOMP, 29)          \
    X(SYNC_WRITE, 30)       \
    X(SYNC_READ, 31)        \
    X(EXECVE, 32)           \
    X(UNSHARE, 33)          \
    X(SETNS, 34)            \
    X(CGROUP, 35)           \
    X(HOSTNAME, 36)         \
    X(SYMLINK, 37)          \
    X(FILE, 38)             \
    X(MOUNT_SOURCE, 39)     \
    X(MOUNT_ATTRIBUTES, 40) \
    X(PARENT_DEATH, 41)     \
    X(CLOSE_RANGE, 42)      \
    X(SIGNALS, 43)          \
    X(BOUNDING, 44)         \
    X(INIT, 45)             \
    X(CLEAN, 46)            \
    X(PIPE, 47)             \
    X(WATCH, 48)            \
    X(KEYRING, 49)          \
    X(TIME, 50)             \
    X(NETWORK, 51)          \
    X(HOOK, 52)             \
    X(SYSCTL, 53)           \
    X(MKNOD, 54)            \
    X(UMASK, 55)            \
    X(OOM_SCORE, 56)        \
    X(NICE, 57)             \
    X(AFFINITY, 58)         \
    X(PERSONALITY, 59)      \
    X(AMBIENT, 60)          \
    X(LANDLOCK, 61)         \
    X(MOUNT_LIMIT, 62)      \
    X(COPY_IN, 63)          \
    X(COPY_OUT, 64)

#define LOCATION_ENUM(name, number) LOCATION_##name = (number),
enum location { LOCATION_NONE = 0, LOCATIONS(LOCATION_ENUM) LOCATION_END };
#undef LOCATION_ENUM

/*
 * X(name, payload, strings, fd_args): the operations. Each is one function
 * op_NAME in one of mounts.c, binds.c, paths.c, idmap.c, fresh.c, traces.c, namespaces.c,
 * hook.c, ids.c, confine.c, landlock.c, fds.c, files.c, process.c, sync.c,
 * decide.c. payload  NONE, STRINGS (`strings` of them, 0: any number), BLOB, or STRING_BLOB
 * (strings, then bytes) fd_args  bit i: arg[i] is an index into the frame's fds, or -1
 */
#define OPS(X)                       \
    X(open_tree, STRINGS, 1, 0)      \
    X(move_mount, STRINGS, 1, 0)     \
    X(mount_setattr, NONE, 0, 0)     \
    X(mount_idmap, STRINGS, 2, 0)    \
    X(open_path, STRINGS, 1, 0)      \
    X(bind, STRINGS, 2, 0)           \
    X(move_path, STRINGS, 2, 0)      \
    X(remount, STRINGS, 1, 0)        \
    X(mask, STRINGS, 3, 0)           \
    X(mount, STRINGS, 4, 0)          \
    X(umount, STRINGS, 1, 0)         \
    X(pivot_root, STRINGS, 2, 0)     \
    X(chroot, STRINGS, 1, 0)         \
    X(chdir, STRINGS, 1, 0)          \
    X(mkdir, STRINGS, 1, 0)          \
    X(mknod, STRINGS, 1, 0)          \
    X(rmdir, STRINGS, 1, 0)          \
    X(symlink, STRINGS, 2, 0)        \
    X(write_file, STRING_BLOB, 1, 0) \
    X(keep_fresh, STRINGS, 2, 0)     \
    X(fresh_ipc, NONE, 0, 0)         \
    X(id_map, STRINGS, 2, 0)         \
    X(hook, STRINGS, 0, 12)          \
    X(hostname, STRINGS, 1, 0)       \
    X(domainname, STRINGS, 1, 0)     \
    X(sysctl, STRINGS, 2, 0)         \
    X(loopback, NONE, 0, 0)          \
    X(setns, NONE, 0, 1)             \
    X(unshare, NONE, 0, 0)           \
    X(host_proc, NONE, 0, 0)         \
    X(time_offsets, NONE, 0, 0)      \
    X(getpid, NONE, 0, 0)            \
    X(setsid, NONE, 0, 0)            \
    X(ctty, NONE, 0, 0)              \
    X(parent_death, NONE, 0, 0)      \
    X(umask, NONE, 0, 0)             \
    X(nice, NONE, 0, 0)              \
    X(affinity, BLOB, 0, 0)          \
    X(personality, NONE, 0, 0)       \
    X(oom_score_adj, STRINGS, 1, 0)  \
    X(rlimit, NONE, 0, 0)            \
    X(enter_cgroup, NONE, 0, 1)      \
    X(keep_caps, NONE, 0, 0)         \
    X(securebits, NONE, 0, 0)        \
    X(drop_bounding, NONE, 0, 0)     \
    X(capset, NONE, 0, 0)            \
    X(ambient, NONE, 0, 0)           \
    X(setgroups, BLOB, 0, 0)         \
    X(setgid, NONE, 0, 0)            \
    X(setuid, NONE, 0, 0)            \
    X(no_new_privs, NONE, 0, 0)      \
    X(session_keyring, NONE, 0, 0)   \
    X(dumpable, NONE, 0, 0)          \
    X(clear_fds, NONE, 0, 0)         \
    X(place_fds, BLOB, 0, 0)         \
    X(close_range, NONE, 0, 0)       \
    X(signals, NONE, 0, 0)           \
    X(close_sync, NONE, 0, 0)        \
    X(sync_write, NONE, 0, 0)        \
    X(sync_read, NONE, 0, 0)         \
    X(stop, NONE, 0, 0)              \
    X(ptrace_me, NONE, 0, 0)         \
    X(seccomp, BLOB, 0, 0)           \
    X(argv, STRINGS, 0, 0)           \
    X(envp, STRINGS, 0, 0)           \
    X(exec, STRINGS, 0, 0)           \
    X(exec_fd, NONE, 0, 1)           \
    X(landlock, NONE, 0, 0)          \
    X(landlock_path, STRINGS, 1, 0)  \
    X(landlock_port, NONE, 0, 0)     \
    X(landlock_restrict, NONE, 0, 0) \
    X(rule_call, NONE, 0, 0)         \
    X(rule_path, STRINGS, 1, 0)      \
    X(rule_refuse, NONE, 0, 0)       \
    X(file_owner, NONE, 0, 0)        \
    X(file_in, STRING_BLOB, 2, 1)    \
    X(file_out, STRINGS, 2, 0)       \
    X(file_link, STRINGS, 3, 0)      \
    X(file_remove, STRINGS, 2, 0)    \
    X(quiet_network, NONE, 0, 0)     \
    X(unchanged, STRINGS, 1, 0)      \
    X(user_keyrings, NONE, 0, 0)     \
    X(init_limits, NONE, 0, 0)

/* What may be at a path that a step needs: anything, nothing, or it has to be there. */
enum target { TARGET_MADE = 0, TARGET_NEW = 1, TARGET_EXISTS = 2 };

/* Flags of `bind` and `remount`. OLD: with mount(2) alone, for Linux before 5.12. */
enum bind_flags { BIND_RECURSIVE = 1, BIND_OPTIONAL = 2, BIND_OLD = 4 };

#define OP_ENUM(name, payload, strings, fd_args) OP_##name,
enum op { OPS(OP_ENUM) OP_END };
#undef OP_ENUM

/* Who executes a step, and when. X(name) */
#define PHASES(X)                                                                  \
    X(EARLY)     /* keeper, before the namespaces exist: opens what init binds */  \
    X(MAPS)      /* keeper, when init exists: its id maps */                       \
    X(SETUP)     /* init, in the new namespaces */                                 \
    X(JOINED)    /* keeper, once it has joined them: inherited by each program */  \
    X(READY)     /* keeper, before a run: what its limits change in the sandbox */ \
    X(PROGRAM)   /* the program's process, before exec */                          \
    X(CLEAN)     /* keeper, after each run */                                      \
    X(SUPERVISE) /* nobody: rules by which the keeper decides calls */             \
    X(FILES)     /* keeper, between runs: files that go in or come out */

#define PHASE_ENUM(name) PHASE_##name,
enum phase { PHASES(PHASE_ENUM) PHASE_END };
#undef PHASE_ENUM

/* A plan: this header, the steps, then `data_bytes` of payloads. */
struct wire_plan {
    uint32_t magic;
    uint32_t step_count;
    uint32_t data_bytes;
    uint32_t reserved;
};

struct wire_step {
    uint16_t op;
    uint16_t location;
    uint16_t phase;
    uint16_t reserved;
    int32_t index; /* in the list that the step belongs to, or -1 */
    uint32_t strings;
    uint32_t offset; /* of the payload, from the start of the data */
    uint32_t length;
    int64_t arg[WIRE_ARGS];
};

/* Sources in place_fds that are no index into the frame's fds. */
enum { FD_CLOSED = -1, FD_STDOUT_PIPE = -2, FD_STDERR_PIPE = -3 };

/*
 * X(name, file, moment): what is read of the program's /proc at its end. EXIT: while its memory
 * is still there, for which it is traced; GONE: when all its threads have ended.
 */
#define NOTES(X)                          \
    X(STATUS, "status", EXIT)             \
    X(SMAPS_ROLLUP, "smaps_rollup", EXIT) \
    X(SMAPS, "smaps", EXIT)               \
    X(SCHED, "sched", GONE)               \
    X(SCHEDSTAT, "schedstat", GONE)

#define NOTE_ENUM(name, file, moment) NOTE_##name,
enum note { NOTES(NOTE_ENUM) NOTE_END };
#undef NOTE_ENUM

/* How a note stands in the memfd for them: this, and so many bytes of the file. */
struct wire_note {
    uint32_t note;
    uint32_t length;
};

enum { NOTE_BYTES_MAX = 1024 * 1024 }; /* what is beyond is left out */

enum cpu_format { CPU_FORMAT_NS = 1, CPU_FORMAT_STAT = 2 };

/* What the keeper watches while a program runs. 0 is no limit, fd index -1 none. */
struct wire_watch {
    int64_t wall_ns;
    int64_t cpu_ns;
    int64_t idle_ns;
    int64_t memory_bytes; /* followed through /proc, where no cgroup does it */
    int64_t output_bytes; /* of both streams together */
    int64_t keep_bytes[2];
    int32_t sink[2]; /* where the captured bytes of stdout, stderr go */
    int32_t cpu_fd;  /* cpuacct.usage or cpu.stat */
    int32_t cpu_format;
    int32_t procs_fd; /* cgroup.procs: empty when nothing is left */
    int32_t cpus;     /* the tree uses at most so many at a time */
    int32_t ledger;   /* where the calls go that were noticed: see `seccomp` */
    int32_t notes_fd; /* a memfd for notes */
    uint32_t notes;   /* bit n: enum note n */
    uint32_t event_type;
    uint32_t event_config; /* what is counted, as perf_event_open(2) has it */
    uint32_t reserved;
};

enum request_kind {
    REQUEST_START = 1,
    REQUEST_RUN = 2,
    REQUEST_KILL = 3,
    REQUEST_SYNC = 4,
    REQUEST_KEEP = 5,   /* fds that follow those of each RUN; a byte of kept_use for each */
    REQUEST_FILES = 6,  /* a plan of FILES steps; answered by DONE, with the fd it opened */
    REQUEST_CLEAN = 7,  /* no more files are taken out: put the places back; not answered */
    REQUEST_PING = 8,   /* answered by DONE if init answers us */
    REQUEST_ANSWER = 9, /* to an ASKED; `clone_flags`: its index, and above 32 bits a verdict */
};

/* What is done with a kept fd in each run. */
enum kept_use { KEPT_RESET = 1, KEPT_READ_BEFORE = 2, KEPT_READ_AFTER = 4 };

enum {
    REQUEST_PLAN_IN_FD = 1,    /* the plan is the first fd, a sealed memfd */
    REQUEST_NOTIFY_EXEC = 2,   /* RUN: say so when exec has happened */
    REQUEST_ABORT = 4,         /* SYNC: do not go on */
    REQUEST_FOLLOW = 8,        /* RUN: no cgroup; account for the tree through /proc and init */
    REQUEST_SAY_FULL = 16,     /* RUN: has it left a place full that is limited? */
    REQUEST_COUNT = 32,        /* RUN: count the event of the watch … */
    REQUEST_MUST_COUNT = 64,   /* … and fail where that cannot be */
    REQUEST_OVERFLOW = 256,    /* KILL: it has written more than it may, to the grader itself */
    REQUEST_CLEAN_LATER = 128, /* RUN: put nothing back before CLEAN, or the next RUN */
};

struct wire_request {
    uint32_t magic;
    uint16_t version;
    uint16_t kind;
    uint64_t run_id;
    uint32_t flags;
    uint32_t plan_bytes;
    uint64_t clone_flags; /* START */
    struct wire_watch watch;
};

enum reply_kind {
    REPLY_STARTED = 1,
    REPLY_FAILED = 2,  /* location, error, index, step; status: of a hook that ended so */
    REPLY_SYNC = 3,    /* pid: waits before exec */
    REPLY_RUNNING = 4, /* pid: exec has happened; if traced, it is stopped there */
    REPLY_EXITED = 5,
    REPLY_ABORTED = 6, /* as asked by SYNC with ABORT */
    REPLY_REFUSED = 7, /* malformed request; `step` is the step at fault or -1 */
    REPLY_STOPPED = 8, /* pid: has stopped itself before its filter is loaded */
    REPLY_DONE = 9,    /* what FILES or PING asked for */
    REPLY_ASKED = 10,  /* index, pid, violation: a call to be decided; then its path, and NUL */
};

/* The verdict of an ANSWER: an errno, or one of these. */
enum { ANSWER_LET = 0, ANSWER_END = 0xffff };

/* What an errno or a signal alone does not tell. X(name) */
#define DETAILS(X) \
    X(NONE) X(LOADER_MISSING) X(MOUNTED_NOEXEC) X(BEYOND_ADDRESS_SPACE) X(BEYOND_DATA)

#define DETAIL_ENUM(name) DETAIL_##name,
enum detail { DETAILS(DETAIL_ENUM) DETAIL_END };
#undef DETAIL_ENUM

/* Who ended the program. X(name) */
#define CAUSES(X) \
    X(NONE) X(CPU_TIME) X(WALL_TIME) X(IDLE_TIME) X(MEMORY) X(OUTPUT) X(CANCELLED) X(SYSCALL)

/* Of a place, when all has ended: is no byte left in it, no inode? */
enum full { FULL_BYTES = 1, FULL_INODES = 2 };

#define CAUSE_ENUM(name) CAUSE_##name,
enum cause { CAUSES(CAUSE_ENUM) CAUSE_END };
#undef CAUSE_ENUM

/*
 * Of which calls the keeper hears: an argument of `seccomp`. Of those that the filter kills
 * for; of all that it refuses, or logs; of all. PERMISSIVE: what it refuses is let through.
 */
enum hearing {
    HEAR_NOTHING,
    HEAR_KILLS,
    HEAR_REFUSALS,
    HEAR_ALL,
    HEAR_WHAT = 7,
    HEAR_PERMISSIVE = 8,
};

/* The calls that were noticed: this, then `count` entries. */
struct wire_ledger {
    uint32_t count;
    uint32_t reserved;
    uint64_t missed; /* calls of kinds for which there was no room */
};

struct wire_ledger_entry {
    int32_t number;
    uint32_t arch;   /* AUDIT_ARCH_* */
    uint32_t answer; /* SECCOMP_RET_* of the filter */
    int32_t pid;     /* of who called first */
    uint64_t count;
    uint64_t args[6]; /* of the first call */
};

/* The call for which a filter has ended the program: all 0 if none has. */
struct wire_violation {
    int32_t heard; /* 1: what the filter kills is told here, so a SIGSYS is not its doing */
    int32_t number;
    uint32_t arch; /* AUDIT_ARCH_* */
    uint32_t reserved;
    uint64_t instruction;
    uint64_t args[6];
};

/*
 * Times in ns, sizes in bytes; -1 is "not measured". EXITED is followed by what the kept
 * files said, first before the run and then after it, each ended by a NUL.
 */
struct wire_reply {
    uint32_t magic;
    uint16_t version;
    uint16_t kind;
    uint64_t run_id;
    int32_t pid;
    int32_t status; /* as wait4 gives it */
    int32_t cause;
    int32_t location;
    int32_t error;
    int32_t index;
    int32_t step;
    int32_t detail;
    int64_t setup_ns;
    int64_t setup_cpu_ns; /* our part of what the cgroup counted */
    int64_t wall_ns;
    int64_t user_ns;
    int64_t system_ns;
    int64_t memory_bytes; /* peak seen through /proc, or -1 */
    int64_t max_rss_bytes;
    int64_t page_faults_major;
    int64_t page_faults_minor;
    int64_t switches_voluntary;
    int64_t switches_involuntary;
    int64_t stream_bytes[2]; /* what the program wrote, or -1 */
    int64_t full;            /* enum full, of all places that are limited together */
    struct wire_violation violation;
    int64_t events; /* of what was to be counted, or -1 */
};

_Static_assert(sizeof(struct wire_plan) == 16, "wire_plan has no padding");
_Static_assert(sizeof(struct wire_step) == 56, "wire_step has no padding");
_Static_assert(sizeof(struct wire_watch) == 104, "wire_watch has no padding");
_Static_assert(sizeof(struct wire_ledger) == 16, "wire_ledger has no padding");
_Static_assert(sizeof(struct wire_ledger_entry) == 72, "wire_ledger_entry has no padding");
_Static_assert(sizeof(struct wire_request) == 136, "wire_request has no padding");
_Static_assert(sizeof(struct wire_reply) == 240, "wire_reply has no padding");
