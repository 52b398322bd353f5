/*
 * What a run may have left where nothing can be put back: it is looked at, and where
 * it is not as it was, the step fails with ESTALE. The sandbox is then damaged, and
 * the next program is started in a new one.
 */
#define _GNU_SOURCE
#include "steps.h"
#include "sys.h"

#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>

enum { GC_TRIES = 50 }; /* a ms apart */

/* keyctl(2) */
enum {
    KEYCTL_GET_KEYRING_ID_OP = 0,
    KEYCTL_CHOWN_OP = 4,
    KEYCTL_DESCRIBE_OP = 6,
    KEYCTL_LINK_OP = 8,
    KEYCTL_UNLINK_OP = 9,
    KEYCTL_READ_OP = 11,
    KEYCTL_SET_TIMEOUT_OP = 15,
    KEYCTL_GET_PERSISTENT_OP = 22,
    KEY_OF_THREAD = -1,
    KEY_OF_USER = -4,
    KEY_OF_USER_SESSION = -5,
};

/*
 * Of the network namespace: how many sockets there are, and what was counted since it
 * was made, by protocol. A program without any network still counts what it sends
 * (OutNoRoutes), and in netstat what of MPTCP it only tries; of which protocols has those
 * sockets for ever that have listened twice. Labels of IPv6 flows stay for up to a minute
 * after their socket, with an address that need not exist.
 */
enum net_file { SOCKSTAT, SNMP, SNMP6, NETSTAT, PROTOCOLS, FLOW_LABELS };
static const char *const counters[TRACES_NET] = {
    [SOCKSTAT] = "sockstat", [SNMP] = "snmp",           [SNMP6] = "snmp6",
    [NETSTAT] = "netstat",   [PROTOCOLS] = "protocols", [FLOW_LABELS] = "ip6_flowlabel",
};

/* Through the directory of our own process, which shows the namespace that we are in. */
static int open_counters(struct net_traces *net)
{
    for (int i = 0; i < TRACES_NET; i++) {
        net->file[i] = openat(net->directory, counters[i], O_RDONLY | O_CLOEXEC);
        if (net->file[i] < 0 && errno != ENOENT) /* a kernel without IPv6 */
            return -errno;
    }
    close_fd(&net->directory);
    return 0;
}

/*
 * What is of the namespace, and not of the whole host: the first line of sockstat; of each
 * line of protocols the name, the size and the number of sockets. Returns its size.
 */
static ssize_t own_part(enum net_file what, char *bytes, ssize_t size)
{
    const char *end = memchr(bytes, '\n', (size_t)size);
    ssize_t kept = 0;
    int word = 0;
    if (what == SOCKSTAT && end)
        return end - bytes;
    if (what != PROTOCOLS)
        return size;
    for (ssize_t at = 0; at < size; at++) {
        const char before = at ? bytes[at - 1] : '\n';
        word = before == '\n' ? 1 : word + (before == ' ' && bytes[at] != ' ');
        if (word <= 3)
            bytes[kept++] = bytes[at];
    }
    return kept;
}

static int read_counters(const struct net_traces *net, enum net_file what,
                         struct net_text *text)
{
    text->size = 0;
    if (net->file[what] < 0)
        return 0;
    text->size = pread(net->file[what], text->bytes, sizeof text->bytes, 0);
    if (text->size < 0)
        return -errno;
    if (text->size == sizeof text->bytes)
        return -EOVERFLOW; /* what is not read cannot be compared */
    text->size = own_part(what, text->bytes, text->size);
    return 0;
}

/*
 * A socket that only a message in itself holds, or io_uring's, is freed by a worker of
 * the kernel's, a little after the process that had it has ended.
 */
static int compare_counters(const struct net_traces *net, enum net_file what)
{
    static struct net_text now;
    const struct timespec pause = timespec_of(MS_NS);
    for (int tries = 0; tries < (what == SOCKSTAT ? GC_TRIES : 1); tries++) {
        int error = read_counters(net, what, &now);
        if (error < 0)
            return error;
        if (now.size == net->text[what].size &&
            memcmp(now.bytes, net->text[what].bytes, (size_t)now.size) == 0)
            return 0;
        if (what == SOCKSTAT)
            (void)nanosleep(&pause, NULL);
    }
    return -ESTALE;
}

/*
 * arg: 0 in EARLY, to open the caller's /proc while it is there; 1 to look. Of sockets that
 * are left, those of AF_UNIX count too; the rest only who has opened another can have moved.
 */
int op_quiet_network(const struct step *step, struct context *context)
{
    if (!context->places)
        return -EINVAL;
    struct net_traces *net = &context->places->net;
    if (step->arg[0] == 0) {
        net->directory = open("/proc/self/net", O_PATH | O_DIRECTORY | O_CLOEXEC);
        return net->directory < 0 ? -errno : 0;
    }
    int error = net->directory < 0 ? 0 : open_counters(net);
    const int files = net->recorded && !net->used ? SOCKSTAT + 1 : TRACES_NET;
    for (int i = 0; error == 0 && i < files; i++) {
        error = net->recorded ? compare_counters(net, (enum net_file)i)
                              : read_counters(net, (enum net_file)i, &net->text[i]);
    }
    net->recorded = true;
    net->used = net->used && error < 0;
    return error;
}

/*
 * The limits of pid 1, which a program with its uid may set (prlimit(2)); how it is
 * scheduled it may not, for pid 1 has capabilities.
 */
int op_init_limits(const struct step *step, struct context *context)
{
    struct places *places = context->places;
    (void)step;
    for (unsigned i = 0; i < RLIM_NLIMITS; i++) {
        uint64_t now[2];
        if (!places || syscall(SYS_prlimit64, places->init, i, NULL, now) < 0)
            return places ? -errno : -EINVAL;
        if (places->init_recorded && memcmp(now, places->init_limits[i], sizeof now) != 0)
            return -ESTALE;
        memcpy(places->init_limits[i], now, sizeof now);
    }
    places->init_recorded = true;
    return 0;
}

/*
 * The keyrings of a user are those of its id in its user namespace, whatever processes there
 * are (keyrings(7)). Looking makes them. They are to hold nothing, but for the one that is
 * linked to the other, to have their first permissions, and to be restricted in no way, which
 * shows only when something is linked. A time-out is taken away, and their group is the only
 * one that the program could give them.
 */
static int look_at_keyring(int ring, int32_t linked)
{
    static const char first[] = "1f3f0000";
    const long bytes = linked ? (long)sizeof linked : 0;
    int32_t keys[2] = {0};
    char text[64] = "";
    long error = sys_result(syscall(SYS_keyctl, KEYCTL_SET_TIMEOUT_OP, ring, 0));
    if (error == -ENOSYS)
        return 0; /* a kernel without keys */
    if (error == 0)
        error = sys_result(syscall(SYS_keyctl, KEYCTL_CHOWN_OP, ring, -1, getegid()));
    if (error == 0)
        error = sys_result(syscall(SYS_keyctl, KEYCTL_LINK_OP, KEY_OF_THREAD, ring));
    if (error == 0)
        error = sys_result(syscall(SYS_keyctl, KEYCTL_UNLINK_OP, KEY_OF_THREAD, ring));
    if (error == 0)
        error = sys_result(syscall(SYS_keyctl, KEYCTL_DESCRIBE_OP, ring, text, sizeof text));
    if (error >= 0)
        error = sys_result(syscall(SYS_keyctl, KEYCTL_READ_OP, ring, keys, sizeof keys));
    if (error < 0)
        return error == -ENOMEM || error == -EDQUOT ? (int)error : -ESTALE; /* it is locked */
    return error == bytes && keys[0] == linked && strstr(text, first) ? 0 : -ESTALE;
}

/* In the program's process, when it has the program's id. Its thread's keyring ends at exec. */
int op_user_keyrings(const struct step *step, struct context *context)
{
    (void)step;
    (void)context;
    int error = look_at_keyring(KEY_OF_USER, 0);
    long user = syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID_OP, KEY_OF_USER, 0);
    if (error == 0 && user > 0)
        error = look_at_keyring(KEY_OF_USER_SESSION, (int32_t)user);
    if (error < 0)
        return error;
    long kept = sys_result(syscall(SYS_keyctl, KEYCTL_GET_PERSISTENT_OP, -1, KEY_OF_THREAD));
    if (kept < 0)
        return kept == -EOPNOTSUPP || kept == -ENOSYS ? 0 : -ESTALE;
    return sys_result(syscall(SYS_keyctl, KEYCTL_READ_OP, kept, NULL, 0)) == 0 ? 0 : -ESTALE;
}

void traces_close(struct places *places)
{
    close_fd(&places->net.directory);
    for (int i = 0; i < TRACES_NET; i++)
        close_fd(&places->net.file[i]);
}
