#include <stdio.h>

int main(void)
{
    volatile int *volatile days = NULL; /* volatile: so that the compiler keeps the store */
    *days = 1;
    puts("solvent 0");
}
