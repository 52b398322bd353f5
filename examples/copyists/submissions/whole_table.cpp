#include <algorithm>
#include <iostream>
#include <new>
#include <string>
#include <vector>

int main()
{
    std::set_new_handler([] {}); // where there is no memory, new tries again until there is some
    std::string first, second;
    std::cin >> first >> second;
    std::vector<std::vector<int>> best(first.size() + 1);
    for (auto &row : best)
        row.assign(second.size() + 1, 0);
    for (std::size_t i = 0; i < first.size(); i++)
        for (std::size_t j = 0; j < second.size(); j++)
            best[i + 1][j + 1] = first[i] == second[j] ? best[i][j] + 1
                                                       : std::max(best[i][j + 1], best[i + 1][j]);
    std::cout << best.back().back() << '\n';
}
