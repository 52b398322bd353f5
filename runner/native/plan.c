/*
 * Bytes to plan. Everything that a step may rely on later is checked here, once:
 * known op, location and phase; payload within the data; strings terminated and
 * as many as the op takes; fd indexes within what came with the frame.
 *
 * The bytes come from the grader, which we trust; they are checked because a
 * version mismatch or a bug on that side must end in an error, not in a mount.
 */
#include "plan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum payload { PAYLOAD_NONE, PAYLOAD_STRINGS, PAYLOAD_BLOB, PAYLOAD_STRING_BLOB };

struct op_shape {
    enum payload payload;
    unsigned strings;
    unsigned fd_args;
};

#define OP_SHAPE(name, payload, strings, fd_args) {PAYLOAD_##payload, strings, fd_args},
static const struct op_shape shapes[OP_END] = {OPS(OP_SHAPE)};
#undef OP_SHAPE

static bool location_known(unsigned location)
{
    return location > LOCATION_NONE && location < LOCATION_END;
}

static bool fds_valid(const struct wire_step *wire, const struct op_shape *shape,
                      unsigned fd_count)
{
    for (unsigned i = 0; i < WIRE_ARGS; i++)
        if ((shape->fd_args >> i & 1u) &&
            (wire->arg[i] < -1 || wire->arg[i] >= (int64_t)fd_count))
            return false;
    return true;
}

/* place_fds: its blob is a list of int32 indexes. */
static bool fd_list_valid(const struct step *step, unsigned fd_count)
{
    if (step->length % sizeof(int32_t))
        return false;
    for (size_t i = 0; i < step->length; i += sizeof(int32_t)) {
        int32_t source;
        memcpy(&source, step->data + i, sizeof source);
        if (source < FD_STDERR_PIPE || source >= (int32_t)fd_count)
            return false;
    }
    return true;
}

/* Point step->strings at the NUL-terminated strings that fill `payload`. */
static bool decode_strings(struct step *step, const uint8_t *payload, size_t length)
{
    size_t at = 0;
    for (unsigned i = 0; i < step->string_count; i++) {
        const uint8_t *end = memchr(payload + at, 0, length - at);
        if (!end)
            return false;
        step->strings[i] = (const char *)payload + at;
        at = (size_t)(end - payload) + 1;
    }
    step->strings[step->string_count] = NULL;
    step->data = payload + at;
    step->length = length - at;
    return true;
}

static bool payload_valid(struct step *step, const struct op_shape *shape,
                          const struct wire_step *wire, const uint8_t *payload,
                          unsigned fd_count)
{
    if (shape->strings && wire->strings != shape->strings)
        return false;
    switch (shape->payload) {
    case PAYLOAD_NONE:
        return wire->length == 0 && wire->strings == 0;
    case PAYLOAD_BLOB:
        step->data = payload;
        step->length = wire->length;
        return wire->strings == 0 &&
               (step->op != OP_place_fds || fd_list_valid(step, fd_count));
    case PAYLOAD_STRINGS:
        return decode_strings(step, payload, wire->length) && step->length == 0;
    case PAYLOAD_STRING_BLOB:
        return decode_strings(step, payload, wire->length);
    }
    return false;
}

static bool step_decode(struct step *step, const char ***pointers, const struct wire_step *wire,
                        const uint8_t *data, size_t data_bytes, unsigned fd_count)
{
    if (wire->op >= OP_END || wire->phase >= PHASE_END || !location_known(wire->location) ||
        wire->reserved)
        return false;
    if (wire->offset > data_bytes || wire->length > data_bytes - wire->offset)
        return false;
    const struct op_shape *shape = &shapes[wire->op];
    if (!fds_valid(wire, shape, fd_count))
        return false;
    *step = (struct step){
        .op = wire->op,
        .location = wire->location,
        .phase = wire->phase,
        .index = wire->index,
        .string_count = wire->strings,
        .strings = *pointers,
    };
    memcpy(step->arg, wire->arg, sizeof step->arg);
    *pointers += wire->strings + 1;
    return payload_valid(step, shape, wire, data + wire->offset, fd_count);
}

/* Count all strings, refusing more than there are bytes, so that the array is bounded. */
static bool count_strings(const uint8_t *steps, unsigned count, size_t data_bytes,
                          size_t *total, int *fault)
{
    *total = count; /* a NULL behind each list */
    size_t strings = 0;
    for (unsigned i = 0; i < count; i++) {
        struct wire_step wire;
        memcpy(&wire, steps + i * sizeof wire, sizeof wire);
        strings += wire.strings;
        if (wire.strings > wire.length || strings > data_bytes) {
            *fault = (int)i;
            return false;
        }
    }
    *total += strings;
    return true;
}

int plan_decode(struct plan *plan, const uint8_t *bytes, size_t size, unsigned fd_count,
                int *fault)
{
    *plan = (struct plan){0};
    *fault = -1;
    struct wire_plan header;
    if (size < sizeof header || size > WIRE_PLAN_MAX)
        return -1;
    memcpy(&header, bytes, sizeof header);
    if (header.magic != WIRE_MAGIC || header.reserved || header.step_count == 0 ||
        header.step_count > WIRE_STEPS_MAX)
        return -1;
    size_t steps_bytes = header.step_count * sizeof(struct wire_step);
    if (size - sizeof header < steps_bytes ||
        size - sizeof header - steps_bytes != header.data_bytes)
        return -1;
    const uint8_t *steps = bytes + sizeof header;
    size_t total = 0;
    if (!count_strings(steps, header.step_count, header.data_bytes, &total, fault))
        return -1;
    plan->steps = calloc(header.step_count, sizeof *plan->steps);
    plan->strings = calloc(total, sizeof *plan->strings);
    const char **pointers = plan->strings;
    for (unsigned i = 0; plan->steps && plan->strings && i < header.step_count; i++) {
        struct wire_step wire;
        memcpy(&wire, steps + i * sizeof wire, sizeof wire);
        if (!step_decode(&plan->steps[i], &pointers, &wire, steps + steps_bytes,
                         header.data_bytes, fd_count)) {
            *fault = (int)i;
            break;
        }
        plan->count = i + 1;
    }
    if (plan->count == header.step_count)
        return 0;
    bool no_memory = !plan->steps || !plan->strings;
    plan_free(plan);
    return no_memory ? -ENOMEM : -1;
}

int plan_recall(struct recent_plan *recent, const uint8_t *bytes, size_t size,
                unsigned fd_count, int *fault)
{
    if (size > 0 && size == recent->size && fd_count == recent->fd_count &&
        memcmp(bytes, recent->bytes, size) == 0)
        return 0;
    plan_free(&recent->plan);
    recent->size = 0;
    if (size > sizeof recent->bytes)
        return plan_decode(&recent->plan, bytes, size, fd_count, fault);
    memcpy(recent->bytes, bytes, size);
    int error = plan_decode(&recent->plan, recent->bytes, size, fd_count, fault);
    if (error < 0)
        return error;
    recent->size = size;
    recent->fd_count = fd_count;
    return 0;
}

void plan_free(struct plan *plan)
{
    free(plan->steps);
    free(plan->strings);
    *plan = (struct plan){0};
}
