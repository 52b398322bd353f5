#include <stdio.h>
#include <string.h>

enum { LONGEST = 9000 };

int main(void)
{
    static char first[LONGEST + 1], second[LONGEST + 1];
    static int best[LONGEST + 1]; /* best[j]: for the rows so far and second[0..j) */
    if (scanf("%9000s %9000s", first, second) != 2)
        return 1;
    size_t width = strlen(second);
    for (const char *letter = first; *letter; letter++) {
        int diagonal = 0;
        for (size_t j = 1; j <= width; j++) {
            int above = best[j];
            if (*letter == second[j - 1])
                best[j] = diagonal + 1;
            else if (best[j - 1] > above)
                best[j] = best[j - 1];
            diagonal = above;
        }
    }
    printf("%d\n", best[width]);
}
