#include <stdio.h>

int main(void)
{
    int days, amount;
    long long balance = 0;
    if (scanf("%d", &days) != 1)
        return 1;
    for (int day = 1; day <= days; day++) {
        if (scanf("%d", &amount) != 1)
            return 1;
        balance += amount;
        if (balance < 0) {
            printf("overdrawn %d\n", day);
            return 0;
        }
    }
    printf("solvent %lld\n", balance);
}
