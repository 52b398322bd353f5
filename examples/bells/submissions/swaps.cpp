#include <iostream>
#include <string>
#include <utility>

static void ring(std::string &row, std::size_t placed)
{
    if (placed == row.size()) {
        std::cout << row << '\n';
        return;
    }
    for (std::size_t i = placed; i < row.size(); i++) {
        std::swap(row[placed], row[i]);
        ring(row, placed + 1);
        std::swap(row[placed], row[i]);
    }
}

int main()
{
    int bells;
    std::cin >> bells;
    std::string row = std::string("123456789").substr(0, bells);
    ring(row, 0);
}
