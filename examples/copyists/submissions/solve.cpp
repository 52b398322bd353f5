#include <algorithm>
#include <iostream>
#include <string>
#include <vector>

int main()
{
    std::string first, second;
    std::cin >> first >> second;
    std::vector<int> row(second.size() + 1), next(second.size() + 1);
    for (char letter : first) {
        for (std::size_t j = 0; j < second.size(); j++)
            next[j + 1] = letter == second[j] ? row[j] + 1 : std::max(row[j + 1], next[j]);
        row.swap(next);
    }
    std::cout << row.back() << '\n';
}
