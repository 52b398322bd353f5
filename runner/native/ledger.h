/* The calls of a run that were noticed, counted by kind, for the grader to read. */
#pragma once

#include "listener.h"
#include "wire.h"

void ledger_reset(void);

/* Count a call; the first of its number, architecture and answer is kept as it was. */
void ledger_add(const struct notice *notice, uint32_t answer);

/* Write all to the start of a file. Returns 0 or -errno. */
int ledger_write(int fd);
