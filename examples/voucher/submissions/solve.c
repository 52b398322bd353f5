#include <stdio.h>
#include <stdlib.h>

static int compare(const void *a, const void *b)
{
    unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;
    return (x > y) - (x < y);
}

/* How many of the prices from `at` on are equal to the one there. */
static long long run_up(const unsigned *price, size_t at, size_t end)
{
    size_t next = at;
    while (next < end && price[next] == price[at])
        next++;
    return (long long)(next - at);
}

static long long run_down(const unsigned *price, size_t at)
{
    size_t next = at;
    while (next > 0 && price[next - 1] == price[at])
        next--;
    return (long long)(at - next + 1);
}

int main(void)
{
    size_t n;
    long long voucher, pairs = 0;
    if (scanf("%zu %lld", &n, &voucher) != 2)
        return 1;
    unsigned *price = malloc(n * sizeof *price);
    if (!price)
        return 1;
    for (size_t i = 0; i < n; i++)
        if (scanf("%u", &price[i]) != 1)
            return 1;
    qsort(price, n, sizeof *price, compare);

    size_t low = 0, high = n - 1;
    while (low < high) {
        long long sum = (long long)price[low] + price[high];
        if (sum < voucher) {
            low++;
        } else if (sum > voucher) {
            high--;
        } else if (price[low] == price[high]) {
            long long equal = (long long)(high - low + 1);
            pairs += equal * (equal - 1) / 2;
            break;
        } else {
            long long lows = run_up(price, low, n), highs = run_down(price, high);
            pairs += lows * highs;
            low += (size_t)lows;
            high -= (size_t)highs;
        }
    }
    free(price);
    printf("%lld\n", pairs);
}
