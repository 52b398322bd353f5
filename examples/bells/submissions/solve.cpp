#include <algorithm>
#include <iostream>
#include <string>

int main()
{
    std::ios::sync_with_stdio(false);
    int bells;
    std::cin >> bells;
    std::string row = std::string("123456789").substr(0, bells);
    do
        std::cout << row << '\n';
    while (std::next_permutation(row.begin(), row.end()));
}
