// Hostile: an instantiation without an end; the compiler gives up at its own depth limit.
template <int n> struct Bomb {
    static constexpr int value = Bomb<n + 1>::value;
};

int main() { return Bomb<0>::value; }
