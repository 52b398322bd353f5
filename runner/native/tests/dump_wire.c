/*
 * The C side of tests/unit/test_wire.py.
 *
 *   dump_wire plan FDS   decode the plan in stdin; a line a step:
 *                        op location phase index arg0 arg1 arg2 arg3 strings data
 *                        with strings and data as hexadecimal digits behind a colon;
 *                        or "refused N", the step at fault, and exit status 1
 *   dump_wire request    the request in stdin, its fields in their order
 *   dump_wire reply      write a reply whose fields are 1, 2, 3 … in their order
 */
#include "plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME(name, ...) #name,
static const char *const op_names[] = {OPS(NAME)};
static const char *const phase_names[] = {PHASES(NAME)};
#undef NAME
#define NAME(name, number) [number] = #name,
static const char *const location_names[] = {LOCATIONS(NAME)};
#undef NAME

static void print_hex(const void *bytes, size_t size)
{
    const uint8_t *at = bytes;
    (void)putchar(':');
    for (size_t i = 0; i < size; i++)
        (void)printf("%02x", at[i]);
}

static void print_step(const struct step *step)
{
    (void)printf("%s %s %s %d", op_names[step->op], location_names[step->location],
                 phase_names[step->phase], step->index);
    for (int i = 0; i < WIRE_ARGS; i++)
        (void)printf(" %" PRId64, step->arg[i]);
    (void)putchar(' ');
    for (unsigned i = 0; i < step->string_count; i++)
        print_hex(step->strings[i], strlen(step->strings[i]));
    (void)putchar(' ');
    print_hex(step->data, step->length);
    (void)putchar('\n');
}

static int dump_plan(unsigned fd_count)
{
    uint8_t *bytes = malloc(WIRE_PLAN_MAX + 1);
    size_t size = bytes ? fread(bytes, 1, WIRE_PLAN_MAX + 1, stdin) : 0;
    struct plan plan;
    int fault;
    int result = plan_decode(&plan, bytes, size, fd_count, &fault);
    if (result < 0)
        (void)printf("refused %d\n", fault);
    for (unsigned i = 0; i < plan.count; i++)
        print_step(&plan.steps[i]);
    plan_free(&plan);
    free(bytes);
    return result < 0 ? 1 : 0;
}

static int dump_request(void)
{
    struct wire_request request;
    if (fread(&request, sizeof request, 1, stdin) != 1)
        return 1;
    const struct wire_watch *watch = &request.watch;
    (void)printf("%" PRIu32 " %u %u %" PRIu64 " %" PRIu32 " %" PRIu32 " %" PRIu64 "\n",
                 request.magic, request.version, request.kind, request.run_id, request.flags,
                 request.plan_bytes, request.clone_flags);
    (void)printf("%" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64
                 " %" PRId64,
                 watch->wall_ns, watch->cpu_ns, watch->idle_ns, watch->memory_bytes,
                 watch->output_bytes, watch->keep_bytes[0], watch->keep_bytes[1]);
    (void)printf(" %d %d %d %d %d %d %d %d", watch->sink[0], watch->sink[1], watch->cpu_fd,
                 watch->cpu_format, watch->procs_fd, watch->cpus, watch->ledger,
                 watch->notes_fd);
    (void)printf(" %" PRIu32 " %" PRIu32 " %" PRIu32 " %" PRIu32 "\n", watch->notes,
                 watch->event_type, watch->event_config, watch->reserved);
    return 0;
}

static int write_reply(void)
{
    const struct wire_reply reply = {
        .magic = WIRE_MAGIC,
        .version = WIRE_VERSION,
        .kind = 1,
        .run_id = 2,
        .pid = 3,
        .status = 4,
        .cause = 5,
        .location = 6,
        .error = 7,
        .index = 8,
        .step = 9,
        .detail = 10,
        .setup_ns = 11,
        .setup_cpu_ns = 12,
        .wall_ns = 13,
        .user_ns = 14,
        .system_ns = 15,
        .memory_bytes = 16,
        .max_rss_bytes = 17,
        .page_faults_major = 18,
        .page_faults_minor = 19,
        .switches_voluntary = 20,
        .switches_involuntary = 21,
        .stream_bytes = {22, 23},
        .full = 24,
        .violation = {25, 26, 27, 28, 29, {30, 31, 32, 33, 34, 35}},
        .events = 36,
    };
    return fwrite(&reply, sizeof reply, 1, stdout) == 1 ? 0 : 1;
}

int main(int argc, char **argv)
{
    int result = 2;
    if (argc == 3 && strcmp(argv[1], "plan") == 0)
        result = dump_plan((unsigned)strtoul(argv[2], NULL, 10));
    else if (argc == 2 && strcmp(argv[1], "request") == 0)
        result = dump_request();
    else if (argc == 2 && strcmp(argv[1], "reply") == 0)
        result = write_reply();
    return fflush(stdout) == 0 ? result : 2;
}
