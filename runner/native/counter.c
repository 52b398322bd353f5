/*
 * The event is opened on ourselves, which needs no right over another process, and inherited by
 * who we start. It is enabled by exec: of the program, as we execute nothing.
 */
#define _GNU_SOURCE
#include "counter.h"

#include "sys.h"

/* perf_event_attr as it was first, PERF_ATTR_SIZE_VER0. */
struct event {
    uint32_t type;
    uint32_t size;
    uint64_t config;
    uint64_t sample_period;
    uint64_t sample_type;
    uint64_t read_format;
    uint64_t flags;
    uint32_t wakeup_events;
    uint32_t breakpoint_type;
    uint64_t config1;
};

_Static_assert(sizeof(struct event) == 64, "perf_event_attr has no padding");

/* Bits of perf_event_attr's flags, and of perf_event_open's. */
#define EVENT_DISABLED 1u
#define EVENT_INHERIT (1u << 1)
#define EVENT_EXCLUDE_KERNEL                                         \
    (1u << 5) /* else it needs perf_event_paranoid 1 or a capability \
               */
#define EVENT_EXCLUDE_HV (1u << 6)
#define EVENT_ENABLE_ON_EXEC (1u << 12)
#define EVENT_FORMAT_TIMES 3u /* enabled and running, behind the count */
#define EVENT_OPEN_CLOEXEC 8u

int counter_open(uint32_t type, uint32_t config)
{
    struct event event = {
        .type = type,
        .size = sizeof event,
        .config = config,
        .read_format = EVENT_FORMAT_TIMES,
        .flags = EVENT_DISABLED | EVENT_INHERIT | EVENT_EXCLUDE_KERNEL | EVENT_EXCLUDE_HV |
                 EVENT_ENABLE_ON_EXEC,
    };
    return (int)sys_result(
        syscall(SYS_perf_event_open, &event, 0, -1, -1, (unsigned long)EVENT_OPEN_CLOEXEC));
}

/* With more events than the CPU has counters they take turns, and the rest is a guess. */
int64_t counter_read(int fd)
{
    struct {
        int64_t count, enabled_ns, running_ns;
    } value;
    if (read(fd, &value, sizeof value) != (ssize_t)sizeof value)
        return -1;
    return value.running_ns == value.enabled_ns ? value.count : -1;
}
