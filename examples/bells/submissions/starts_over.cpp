#include <algorithm>
#include <iostream>
#include <string>

int main()
{
    std::ios::sync_with_stdio(false);
    int bells;
    std::cin >> bells;
    std::string row = std::string("123456789").substr(0, bells);
    for (long rows = 0; rows < 10'000'000; rows++) {
        std::cout << row << '\n';
        std::next_permutation(row.begin(), row.end());
    }
}
