#include <iostream>

int main()
{
    std::ios::sync_with_stdio(false);
    std::cin.tie(nullptr);
    int days;
    std::cin >> days;
    long long balance = 0, amount;
    int overdrawn = 0;
    for (int day = 1; day <= days; day++) {
        std::cin >> amount;
        balance += amount;
        if (balance < 0 && overdrawn == 0)
            overdrawn = day;
    }
    if (overdrawn)
        std::cout << "overdrawn " << overdrawn << '\n';
    else
        std::cout << "solvent " << balance << '\n';
}
