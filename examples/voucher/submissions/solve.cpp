#include <algorithm>
#include <iostream>
#include <vector>

int main()
{
    std::ios::sync_with_stdio(false);
    std::cin.tie(nullptr);
    int n;
    long long voucher;
    std::cin >> n >> voucher;
    std::vector<long long> prices(n);
    for (auto &price : prices)
        std::cin >> price;
    std::sort(prices.begin(), prices.end());

    long long pairs = 0;
    for (auto price : prices) {
        auto [first, last] = std::equal_range(prices.begin(), prices.end(), voucher - price);
        pairs += last - first - (2 * price == voucher ? 1 : 0);
    }
    std::cout << pairs / 2 << '\n'; // each pair was found from both of its ends
}
