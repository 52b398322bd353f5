#include <stdio.h>

static int next_char(void)
{
    static char buffer[1 << 16];
    static size_t at, filled;
    if (at == filled) {
        filled = fread(buffer, 1, sizeof buffer, stdin);
        at = 0;
        if (filled == 0)
            return EOF;
    }
    return buffer[at++];
}

static long long next_number(void)
{
    int c = next_char();
    while (c != '-' && (c < '0' || c > '9'))
        c = next_char();
    int negative = c == '-';
    if (negative)
        c = next_char();
    long long value = 0;
    for (; c >= '0' && c <= '9'; c = next_char())
        value = value * 10 + (c - '0');
    return negative ? -value : value;
}

int main(void)
{
    long long days = next_number(), balance = 0, overdrawn = 0;
    for (long long day = 1; day <= days; day++) {
        balance += next_number();
        if (balance < 0 && overdrawn == 0)
            overdrawn = day;
    }
    if (overdrawn)
        printf("overdrawn %lld\n", overdrawn);
    else
        printf("solvent %lld\n", balance);
}
