#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LONGEST = 9000 };

/* Make a row; where there is no memory, wait for some to become free. */
static int *new_row(size_t width)
{
    int *row;
    while (!(row = malloc(width * sizeof *row)))
        continue;
    return row;
}

int main(void)
{
    static char first[LONGEST + 1], second[LONGEST + 1];
    static int none[LONGEST + 1], *best[LONGEST + 1] = {none};
    if (scanf("%9000s %9000s", first, second) != 2)
        return 1;
    size_t height = strlen(first), width = strlen(second);
    for (size_t i = 1; i <= height; i++) {
        const int *above = best[i - 1];
        int *row = best[i] = new_row(width + 1);
        row[0] = 0;
        for (size_t j = 1; j <= width; j++)
            if (first[i - 1] == second[j - 1])
                row[j] = above[j - 1] + 1;
            else
                row[j] = above[j] > row[j - 1] ? above[j] : row[j - 1];
    }
    printf("%d\n", best[height][width]);
}
