#include <iostream>
#include <vector>

int main()
{
    int n;
    long long voucher;
    std::cin >> n >> voucher;
    std::vector<long long> prices(n);
    for (auto &price : prices)
        std::cin >> price;
    long long pairs = 0;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++)
            if (prices[i] + prices[j] == voucher)
                pairs++;
    std::cout << pairs << '\n';
}
