#include <iostream>
#include <unordered_map>

int main()
{
    int n;
    unsigned voucher, price;
    std::cin >> n >> voucher;
    std::unordered_map<unsigned, unsigned> seen;
    unsigned pairs = 0;
    while (n--) {
        std::cin >> price;
        if (auto match = seen.find(voucher - price); match != seen.end())
            pairs += match->second;
        seen[price]++;
    }
    std::cout << pairs << '\n';
}
