/* Notice of the calls by which a program can leave something in its network namespace. */
#pragma once

#include "filter.h"

enum { SOCKETS_LENGTH = 13 };

/* Does it open a socket but of AF_UNIX, or what could open one unseen? */
bool sockets_opened_by(const struct call *call);

/* Can there be notice of such calls, and all else be as this filter has it? */
bool sockets_can_be_told(const struct filter *filter);

/* What goes before a filter for that, and passes all other calls on to it. */
void sockets_ask(struct instruction code[SOCKETS_LENGTH]);
