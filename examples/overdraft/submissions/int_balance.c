#include <stdio.h>

int main(void)
{
    unsigned days, balance = 0, overdrawn = 0;
    int amount;
    if (scanf("%u", &days) != 1)
        return 1;
    for (unsigned day = 1; day <= days; day++) {
        if (scanf("%d", &amount) != 1)
            return 1;
        balance += amount;
        if ((int)balance < 0 && overdrawn == 0)
            overdrawn = day;
    }
    if (overdrawn)
        printf("overdrawn %u\n", overdrawn);
    else
        printf("solvent %d\n", (int)balance);
}
