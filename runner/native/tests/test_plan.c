/*
 * plan_decode: accepts each operation as OPS(X) describes it, and refuses each
 * malformation with the number of the step at fault.
 *
 * A draft is a plan as Python would send it, kept in pieces so that a test can
 * spoil one of them. It is decoded from an allocation of exactly its size: a
 * read beyond its end is then seen by ASan.
 */
#include "plan.h"

#include "tap.h"

#include <limits.h>
#include <string.h>

enum { DRAFT_STEPS = 8, DRAFT_DATA = 256, HEADER = -1, FD_COUNT = 3 };

struct draft {
    struct wire_plan header;
    struct wire_step steps[DRAFT_STEPS];
    uint8_t data[DRAFT_DATA];
};

enum payload { PAYLOAD_NONE, PAYLOAD_STRINGS, PAYLOAD_BLOB, PAYLOAD_STRING_BLOB };

struct shape {
    const char *name;
    enum payload payload;
    unsigned strings;
    unsigned fd_args;
};

#define SHAPE(name, payload, strings, fd_args) {#name, PAYLOAD_##payload, strings, fd_args},
static const struct shape shapes[OP_END] = {OPS(SHAPE)};
#undef SHAPE

static struct draft empty_draft(void)
{
    return (struct draft){.header.magic = WIRE_MAGIC};
}

static struct wire_step *add(struct draft *draft, enum op op, unsigned strings,
                             const void *payload, size_t length)
{
    struct wire_step *step = &draft->steps[draft->header.step_count++];
    *step = (struct wire_step){
        .op = (uint16_t)op,
        .location = LOCATION_MOUNT,
        .phase = PHASE_PROGRAM,
        .index = -1,
        .strings = strings,
        .offset = draft->header.data_bytes,
        .length = (uint32_t)length,
    };
    if (length)
        memcpy(draft->data + step->offset, payload, length);
    draft->header.data_bytes += (uint32_t)length;
    return step;
}

/* Two steps that are right, and a third to spoil: its number shows that it is the one found. */
enum { SPOILT = 2 };

static struct wire_step *add_third(struct draft *draft, enum op op, unsigned strings,
                                   const void *payload, size_t length)
{
    *draft = empty_draft();
    add(draft, OP_setsid, 0, NULL, 0);
    add(draft, OP_chdir, 1, "/tmp", 5);
    return add(draft, op, strings, payload, length);
}

/* The draft's bytes, in memory of just that size, the caller's to free. */
static uint8_t *bytes_of(const struct draft *draft, size_t *size)
{
    size_t steps = draft->header.step_count <= DRAFT_STEPS ? draft->header.step_count : 0;
    size_t data = draft->header.data_bytes <= DRAFT_DATA ? draft->header.data_bytes : 0;
    *size = sizeof draft->header + steps * sizeof *draft->steps + data;
    uint8_t *bytes = malloc(*size);
    if (!bytes)
        bail_out("malloc");
    memcpy(bytes, &draft->header, sizeof draft->header);
    memcpy(bytes + sizeof draft->header, draft->steps, steps * sizeof *draft->steps);
    memcpy(bytes + *size - data, draft->data, data);
    return bytes;
}

/* Is it refused, at this step, with nothing left to free? */
static bool refused_at(const struct draft *draft, int step)
{
    size_t size;
    uint8_t *bytes = bytes_of(draft, &size);
    struct plan plan;
    int fault = INT_MAX;
    int result = plan_decode(&plan, bytes, size, FD_COUNT, &fault);
    bool freed = plan.steps == NULL && plan.strings == NULL && plan.count == 0;
    plan_free(&plan);
    free(bytes);
    return result == -1 && fault == step && freed;
}

static bool accepted(const struct draft *draft)
{
    size_t size;
    uint8_t *bytes = bytes_of(draft, &size);
    struct plan plan;
    int fault = INT_MAX;
    int result = plan_decode(&plan, bytes, size, FD_COUNT, &fault);
    bool counted = plan.count == draft->header.step_count;
    plan_free(&plan);
    free(bytes);
    return result == 0 && fault == -1 && counted;
}

/* A payload as the shape wants it: "a\0b\0…", then bytes of a blob. */
static size_t payload_for(const struct shape *shape, unsigned strings, uint8_t *payload)
{
    size_t length = 0;
    for (unsigned i = 0; i < strings; i++) {
        payload[length++] = (uint8_t)('a' + i);
        payload[length++] = 0;
    }
    if (shape->payload == PAYLOAD_BLOB || shape->payload == PAYLOAD_STRING_BLOB)
        for (int i = 0; i < 8; i++)
            payload[length++] = 0; /* two int32 indexes 0, for place_fds */
    return length;
}

static unsigned strings_for(const struct shape *shape)
{
    bool any = shape->payload == PAYLOAD_STRINGS && shape->strings == 0;
    return any ? 3 : shape->strings;
}

static struct wire_step *add_third_shaped(struct draft *draft, enum op op)
{
    uint8_t payload[64];
    unsigned strings = strings_for(&shapes[op]);
    size_t length = payload_for(&shapes[op], strings, payload);
    return add_third(draft, op, strings, payload, length);
}

/* Does the decoded third step hold what was sent? */
static bool decoded_right(const struct step *step, enum op op)
{
    const struct shape *shape = &shapes[op];
    unsigned strings = strings_for(shape);
    bool blob = shape->payload == PAYLOAD_BLOB || shape->payload == PAYLOAD_STRING_BLOB;
    if (step->op != op || step->string_count != strings || step->length != (blob ? 8u : 0u) ||
        step->strings[strings] != NULL)
        return false;
    for (unsigned i = 0; i < strings; i++)
        if (step->strings[i][0] != (char)('a' + i) || step->strings[i][1] != 0)
            return false;
    for (size_t i = 0; i < step->length; i++)
        if (step->data[i] != 0)
            return false;
    return true;
}

static void test_each_shape(void)
{
    for (enum op op = 0; op < OP_END; op++) {
        struct draft draft;
        add_third_shaped(&draft, op);
        size_t size;
        uint8_t *bytes = bytes_of(&draft, &size);
        struct plan plan;
        int fault;
        bool right = plan_decode(&plan, bytes, size, FD_COUNT, &fault) == 0 &&
                     plan.count == 3 && decoded_right(&plan.steps[SPOILT], op) &&
                     !strcmp(plan.steps[1].strings[0], "/tmp") && !plan.steps[1].strings[1];
        check(right, "%s: its shape is decoded", shapes[op].name);
        plan_free(&plan);
        free(bytes);
    }
}

static void test_other_shapes(void)
{
    for (enum op op = 0; op < OP_END; op++) {
        const struct shape *shape = &shapes[op];
        struct draft draft;
        bool refused = true;
        if (shape->payload == PAYLOAD_NONE) {
            add_third(&draft, op, 0, "x", 1);
            refused = refused && refused_at(&draft, SPOILT);
            add_third(&draft, op, 1, "", 1);
            refused = refused && refused_at(&draft, SPOILT);
        } else if (shape->payload == PAYLOAD_BLOB) {
            add_third(&draft, op, 1, "\0\0\0", 4);
            refused = refused && refused_at(&draft, SPOILT);
        } else {
            add_third_shaped(&draft, op)->strings++; /* one more than there are */
            if (shape->payload == PAYLOAD_STRING_BLOB || shape->strings)
                refused = refused && refused_at(&draft, SPOILT);
            add_third_shaped(&draft, op)->strings--; /* something is left over */
            refused = refused && refused_at(&draft, SPOILT);
            add_third_shaped(&draft, op)->strings = 0;
            refused = refused && refused_at(&draft, SPOILT);
        }
        check(refused, "%s: another shape is refused", shape->name);
    }
}

static void test_values(void)
{
    struct draft draft;
    const int32_t list[] = {0, FD_CLOSED, FD_STDOUT_PIPE, FD_STDERR_PIPE, FD_COUNT - 1};
    struct wire_step *step = add_third(&draft, OP_place_fds, 0, list, sizeof list);
    step->index = 7;
    step->phase = PHASE_CLEAN;
    step->location = LOCATION_DUP3;
    const int64_t args[WIRE_ARGS] = {INT64_MIN, -1, 1, INT64_MAX};
    memcpy(step->arg, args, sizeof args);
    size_t size;
    uint8_t *bytes = bytes_of(&draft, &size);
    struct plan plan;
    int fault;
    bool decoded = plan_decode(&plan, bytes, size, FD_COUNT, &fault) == 0;
    const struct step *got = decoded ? &plan.steps[SPOILT] : NULL;
    check(decoded && got->op == OP_place_fds && got->index == 7 && got->phase == PHASE_CLEAN &&
              got->location == LOCATION_DUP3 && memcmp(got->arg, args, sizeof args) == 0 &&
              got->length == sizeof list && memcmp(got->data, list, sizeof list) == 0,
          "values: index, phase, location, arguments and blob arrive as sent");
    plan_free(&plan);
    free(bytes);
    add_third(&draft, OP_argv, 4, "\0a\0\0\xff\xfe", 7);
    bytes = bytes_of(&draft, &size);
    decoded = plan_decode(&plan, bytes, size, FD_COUNT, &fault) == 0;
    const char **strings = decoded ? plan.steps[SPOILT].strings : NULL;
    check(decoded && !strcmp(strings[0], "") && !strcmp(strings[1], "a") &&
              !strcmp(strings[2], "") && !strcmp(strings[3], "\xff\xfe") && !strings[4],
          "values: strings may be empty and hold any byte but NUL");
    plan_free(&plan);
    free(bytes);
}

static void test_header(void)
{
    struct draft right = empty_draft();
    add(&right, OP_chdir, 1, "/", 2);
    check(accepted(&right), "header: a right one is accepted");
#define SPOIL(change, what)                      \
    do {                                         \
        struct draft draft = right;              \
        change;                                  \
        check(refused_at(&draft, HEADER), what); \
    } while (0)
    SPOIL(draft.header.magic ^= 1, "header: another magic is refused");
    SPOIL(draft.header.reserved = 1, "header: a reserved field in use is refused");
    SPOIL(draft.header.step_count = 0, "header: no steps are refused");
    SPOIL(draft.header.step_count = WIRE_STEPS_MAX + 1, "header: too many steps are refused");
    SPOIL(draft.header.step_count = UINT32_MAX, "header: 2^32-1 steps are refused");
    SPOIL(draft.header.data_bytes = UINT32_MAX, "header: 2^32-1 bytes of data are refused");
#undef SPOIL
    const struct wire_plan wrong[] = {
        {WIRE_MAGIC, right.header.step_count, right.header.data_bytes - 1, 0},
        {WIRE_MAGIC, right.header.step_count, right.header.data_bytes + 1, 0},
        {WIRE_MAGIC, right.header.step_count + 1, right.header.data_bytes, 0},
        {WIRE_MAGIC, WIRE_STEPS_MAX, right.header.data_bytes, 0},
    };
    size_t size;
    uint8_t *bytes = bytes_of(&right, &size);
    bool refused = true;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        memcpy(bytes, &wrong[i], sizeof wrong[i]);
        struct plan plan;
        int fault = INT_MAX;
        refused = refused && plan_decode(&plan, bytes, size, FD_COUNT, &fault) == -1 &&
                  fault == HEADER;
    }
    check(refused, "header: sizes that do not add up to the plan's are refused");
    free(bytes);
}

/* Plans of as many steps, and as many bytes, as there may be, and one more. */
static void test_sizes(void)
{
    for (unsigned count = WIRE_STEPS_MAX; count <= WIRE_STEPS_MAX + 1; count++) {
        size_t size = sizeof(struct wire_plan) + count * sizeof(struct wire_step);
        uint8_t *bytes = calloc(1, size);
        if (!bytes)
            bail_out("calloc");
        const struct wire_plan header = {.magic = WIRE_MAGIC, .step_count = count};
        memcpy(bytes, &header, sizeof header);
        const struct wire_step step = {.op = OP_setsid, .location = LOCATION_SETSID};
        for (unsigned i = 0; i < count; i++)
            memcpy(bytes + sizeof header + i * sizeof step, &step, sizeof step);
        struct plan plan;
        int fault = INT_MAX;
        int result = plan_decode(&plan, bytes, size, FD_COUNT, &fault);
        check(result == (count == WIRE_STEPS_MAX ? 0 : -1) && fault == -1,
              "sizes: %u steps are %s", count,
              count == WIRE_STEPS_MAX ? "accepted" : "refused");
        plan_free(&plan);
        free(bytes);
    }
    const size_t head = sizeof(struct wire_plan) + sizeof(struct wire_step);
    for (size_t size = WIRE_PLAN_MAX; size <= WIRE_PLAN_MAX + 1; size++) {
        uint8_t *bytes = calloc(1, size);
        if (!bytes)
            bail_out("calloc");
        const struct wire_plan header = {WIRE_MAGIC, 1, (uint32_t)(size - head), 0};
        const struct wire_step step = {.op = OP_setgroups, .location = LOCATION_SETGROUPS};
        memcpy(bytes, &header, sizeof header);
        memcpy(bytes + sizeof header, &step, sizeof step);
        struct plan plan;
        int fault;
        int result = plan_decode(&plan, bytes, size, FD_COUNT, &fault);
        check(result == (size == WIRE_PLAN_MAX ? 0 : -1), "sizes: %zu bytes are %s", size,
              size == WIRE_PLAN_MAX ? "accepted" : "refused");
        plan_free(&plan);
        free(bytes);
    }
}

static void test_fields(void)
{
    struct draft draft;
#define SPOIL(change, what)                                              \
    do {                                                                 \
        struct wire_step *step = add_third(&draft, OP_chdir, 1, "/", 2); \
        change;                                                          \
        check(refused_at(&draft, SPOILT), what);                         \
    } while (0)
    SPOIL(step->op = OP_END, "fields: an unknown operation is refused");
    SPOIL(step->op = UINT16_MAX, "fields: operation 65535 is refused");
    SPOIL(step->phase = PHASE_END, "fields: an unknown phase is refused");
    SPOIL(step->phase = UINT16_MAX, "fields: phase 65535 is refused");
    SPOIL(step->location = LOCATION_NONE, "fields: location 0 is refused");
    SPOIL(step->location = LOCATION_END, "fields: an unknown location is refused");
    SPOIL(step->location = UINT16_MAX, "fields: location 65535 is refused");
    SPOIL(step->reserved = 1, "fields: a reserved field in use is refused");
    SPOIL(step->offset++, "fields: a payload that ends behind the data is refused");
    SPOIL(step->length++, "fields: a payload longer than the data is refused");
    SPOIL(step->offset += 2, "fields: a payload that begins at the end is refused");
    SPOIL(step->offset += 3, "fields: a payload that begins behind the end is refused");
    SPOIL(step->offset = UINT32_MAX, "fields: offset 2^32-1 is refused");
    SPOIL(step->length = UINT32_MAX, "fields: length 2^32-1 is refused");
    SPOIL(step->offset = UINT32_MAX - 1; step->length = 4, "fields: offset + length overflows");
    SPOIL(draft.data[step->offset + 1] = 'x', "fields: a string without NUL is refused");
    SPOIL(step->strings = 3, "fields: more strings than bytes are refused");
    SPOIL(step->strings = UINT32_MAX, "fields: 2^32-1 strings are refused");
    SPOIL(step->strings = UINT32_MAX;
          step->length = UINT32_MAX, "fields: 2^32-1 strings in 2^32-1 bytes are refused");
#undef SPOIL
    /* A blob, of which no string can be missing: 5 + 2^32-4 is 1 in 32 bits. */
    add_third(&draft, OP_setgroups, 0, NULL, 0)->length = UINT32_MAX - 3;
    check(refused_at(&draft, SPOILT),
          "fields: a length that wraps round to the data is refused");
    add_third(&draft, OP_argv, 0, "", 0);
    check(accepted(&draft), "fields: an empty payload at the end of the data is accepted");
}

/* Payloads may overlap, but not so that the strings are more than the data's bytes. */
static void test_overlap(void)
{
    struct draft draft = empty_draft();
    add(&draft, OP_argv, 4, "\0\0\0", 4);
    for (int i = 0; i < 2; i++)
        add(&draft, OP_argv, 4, NULL, 0)->length = 4;
    draft.steps[1].offset = draft.steps[2].offset = 0;
    check(refused_at(&draft, 1), "overlap: strings counted twice are refused");
}

static void test_fd_arguments(void)
{
    for (enum op op = 0; op < OP_END; op++)
        for (unsigned i = 0; i < WIRE_ARGS; i++) {
            static const int64_t out[] = {INT64_MIN, -2, FD_COUNT, 1ll << 32, INT64_MAX};
            bool is_fd = shapes[op].fd_args >> i & 1u, right = true;
            struct draft draft;
            for (size_t n = 0; n < sizeof out / sizeof *out; n++) {
                add_third_shaped(&draft, op)->arg[i] = out[n];
                right = right && (is_fd ? refused_at(&draft, SPOILT) : accepted(&draft));
            }
            for (int fd = -1; fd < FD_COUNT; fd++) {
                add_third_shaped(&draft, op)->arg[i] = fd;
                right = right && accepted(&draft);
            }
            if (is_fd || !right)
                check(right, "%s: arg[%u] is an fd's index or -1", shapes[op].name, i);
        }
}

static void test_fd_list(void)
{
    struct draft draft;
    bool refused = true;
    for (size_t length = 1; length < 16; length++) {
        uint8_t zeros[16] = {0};
        add_third(&draft, OP_place_fds, 0, zeros, length);
        refused = refused && (length % 4 ? refused_at(&draft, SPOILT) : accepted(&draft));
    }
    check(refused, "fd list: a length that is no multiple of 4 is refused");
    static const int32_t out[] = {INT32_MIN, FD_STDERR_PIPE - 1, FD_COUNT, INT32_MAX};
    refused = true;
    for (size_t n = 0; n < sizeof out / sizeof *out; n++)
        for (size_t at = 0; at < 3; at++) {
            int32_t list[3] = {0, FD_CLOSED, FD_STDERR_PIPE};
            list[at] = out[n];
            add_third(&draft, OP_place_fds, 0, list, sizeof list);
            refused = refused && refused_at(&draft, SPOILT);
        }
    check(refused, "fd list: an index that is none is refused at any place");
    add_third(&draft, OP_setgroups, 0, "abc", 3);
    check(accepted(&draft), "fd list: other blobs may hold anything");
}

static void test_truncation(void)
{
    struct draft draft;
    add_third(&draft, OP_argv, 2, "cat\0file", 9);
    size_t size;
    uint8_t *bytes = bytes_of(&draft, &size);
    bool refused = true;
    for (size_t cut = 0; cut < size; cut++) {
        uint8_t *part = malloc(cut ? cut : 1);
        if (!part)
            bail_out("malloc");
        memcpy(part, bytes, cut);
        struct plan plan;
        int fault = INT_MAX;
        refused = refused && plan_decode(&plan, part, cut, FD_COUNT, &fault) == -1 &&
                  fault == HEADER && !plan.steps && !plan.strings;
        free(part);
    }
    check(refused, "truncation: a plan cut at any of its %zu bytes is refused", size);
    uint8_t *longer = malloc(size + 1);
    if (!longer)
        bail_out("malloc");
    memcpy(longer, bytes, size);
    longer[size] = 0;
    struct plan plan;
    int fault;
    check(plan_decode(&plan, longer, size + 1, FD_COUNT, &fault) == -1 && fault == HEADER,
          "truncation: a byte too many is refused");
    free(longer);
    free(bytes);
}

/* The bytes are freed after each call: what was remembered must not point into them. */
static int recall(struct recent_plan *recent, const struct draft *draft, unsigned fd_count)
{
    size_t size;
    int fault;
    uint8_t *bytes = bytes_of(draft, &size);
    int result = plan_recall(recent, bytes, size, fd_count, &fault);
    free(bytes);
    return result;
}

static void test_recall(void)
{
    static struct recent_plan recent;
    struct draft draft = empty_draft(), other = empty_draft(), bad = empty_draft();
    add(&draft, OP_chdir, 1, "/tmp", 5);
    add(&other, OP_chdir, 1, "/var", 5);
    add(&bad, OP_chdir, 1, "/var", 4);
    check(recall(&recent, &draft, 0) == 0, "recall: what is new is decoded");
    const struct step *steps = recent.plan.steps;
    check(recall(&recent, &draft, 0) == 0 && recent.plan.steps == steps &&
              strcmp(steps->strings[0], "/tmp") == 0,
          "recall: the same again is the same");
    check(recall(&recent, &other, 0) == 0 && strcmp(recent.plan.steps->strings[0], "/var") == 0,
          "recall: a byte that differs is seen");
    recent.plan.steps->index = 7; /* to tell whether it is decoded anew */
    check(recall(&recent, &other, 1) == 0 && recent.plan.steps->index == -1,
          "recall: with other fds it is checked anew");
    check(recall(&recent, &bad, 1) == -1 && recall(&recent, &bad, 1) == -1,
          "recall: what is malformed is so each time");
    check(recall(&recent, &other, 1) == 0 && recent.plan.count == 1,
          "recall: and forgets nothing else");
    plan_free(&recent.plan);
}

int main(void)
{
    test_recall();
    test_each_shape();
    test_other_shapes();
    test_values();
    test_header();
    test_sizes();
    test_fields();
    test_overlap();
    test_fd_arguments();
    test_fd_list();
    test_truncation();
    return finish();
}
