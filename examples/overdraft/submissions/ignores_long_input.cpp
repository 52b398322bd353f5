#include <iostream>

int main()
{
    int days;
    std::cin >> days;
    if (days > 100'000) {
        std::cout << "too long for me\n";
        return 0;
    }
    long long balance = 0, amount;
    for (int day = 1; day <= days; day++) {
        std::cin >> amount;
        balance += amount;
        if (balance < 0) {
            std::cout << "overdrawn " << day << '\n';
            return 0;
        }
    }
    std::cout << "solvent " << balance << '\n';
}
