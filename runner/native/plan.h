/* The decoded plan: steps that point into the bytes they came from. */
#pragma once

#include "wire.h"

#include <stdbool.h>
#include <stddef.h>

struct step {
    enum op op;
    enum location location;
    enum phase phase;
    int index;
    unsigned string_count;
    const char **strings; /* string_count of them, then NULL */
    const uint8_t *data;  /* of a BLOB, or what follows the string of a STRING_BLOB */
    size_t length;
    int64_t arg[WIRE_ARGS];
};

struct plan {
    struct step *steps;
    const char **strings; /* all steps' pointers, in one piece */
    unsigned count;
};

/*
 * Check `size` bytes and decode them. The plan keeps pointers into `bytes`.
 * Returns 0, or -1 with the number of the step at fault in *fault, -1 if it is
 * the header. Nothing needs plan_free then.
 */
int plan_decode(struct plan *plan, const uint8_t *bytes, size_t size, unsigned fd_count,
                int *fault);
void plan_free(struct plan *plan);

/* A plan and the bytes that it was decoded from, if the same are to come again. */
struct recent_plan {
    struct plan plan;
    unsigned fd_count;
    size_t size; /* 0: nothing to be had again */
    uint8_t bytes[WIRE_FRAME_MAX];
};

/*
 * Decode as plan_decode does, or take what the very same was decoded to the last time.
 * The plan holds until the next call; it may keep pointers into `bytes` if they are long.
 */
int plan_recall(struct recent_plan *recent, const uint8_t *bytes, size_t size,
                unsigned fd_count, int *fault);
