#include <stdio.h>

int main(void)
{
    puts("solvent 0")
}
