#include <stdio.h>
#include <stdlib.h>

static void ring(char *row, int placed, int bells, unsigned left)
{
    if (placed == bells) {
        puts(row);
        return;
    }
    for (int bell = 1; bell <= bells; bell++)
        if (left & 1u << bell) {
            row[placed] = (char)('0' + bell);
            ring(row, placed + 1, bells, left & ~(1u << bell));
        }
}

int main(void)
{
    int bells;
    char row[10] = "";
    if (scanf("%d", &bells) != 1 || bells > 9)
        return 1;
    ring(row, 0, bells, ~0u);
}
