/*
 * Bounded, as what fills it is not trusted: a call of a kind for which there is no room
 * is counted among the missed. The kinds that a filter knows fit: numbers below 600, of
 * few architectures.
 */
#define _GNU_SOURCE
#include "ledger.h"

#include "sys.h"

#include <string.h>

static struct {
    struct wire_ledger head;
    struct wire_ledger_entry entries[WIRE_LEDGER_MAX];
} ledger;

void ledger_reset(void)
{
    ledger.head = (struct wire_ledger){0};
}

void ledger_add(const struct notice *notice, uint32_t answer)
{
    const struct call *call = &notice->call;
    for (uint32_t i = 0; i < ledger.head.count; i++) {
        struct wire_ledger_entry *entry = &ledger.entries[i];
        if (entry->number == call->number && entry->arch == call->arch &&
            entry->answer == answer) {
            entry->count++;
            return;
        }
    }
    if (ledger.head.count == WIRE_LEDGER_MAX) {
        ledger.head.missed++;
        return;
    }
    struct wire_ledger_entry *entry = &ledger.entries[ledger.head.count++];
    *entry = (struct wire_ledger_entry){
        .number = call->number,
        .arch = call->arch,
        .answer = answer,
        .pid = (int32_t)notice->pid,
        .count = 1,
    };
    memcpy(entry->args, call->args, sizeof entry->args);
}

int ledger_write(int fd)
{
    size_t size = sizeof ledger.head + ledger.head.count * sizeof *ledger.entries;
    ssize_t written = pwrite(fd, &ledger, size, 0); /* a memfd takes all or nothing */
    if (written < 0)
        return -errno;
    return (size_t)written == size ? 0 : -EIO;
}
