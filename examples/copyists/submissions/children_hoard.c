/*
 * Hostile: spreads its memory over 8 processes, each of which stays below the limit and all of
 * which together take five times as much. They keep writing to it for half a second.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHILDREN = 8, PIECE = 20 << 20 };

static void hoard(void)
{
    char *piece = malloc(PIECE);
    for (int round = 1; piece && round <= 10; round++) {
        memset(piece, round, PIECE);
        usleep(50000); /* or the time limit might be the first to fire */
        if (piece[round * 4096] != round)
            break;
    }
    _exit(0);
}

int main(void)
{
    for (int started = 0; started < CHILDREN; started++)
        if (fork() == 0)
            hoard();
    while (wait(NULL) > 0)
        continue;
}
