# A row of the table rises by 0 or 1 from column to column: one bit each, and a row is one integer.
first, second = input(), input()
every = (1 << len(first)) - 1
flat = every  # bit j is clear where column j is one more than column j - 1
places = dict.fromkeys(second, 0)
for index, letter in enumerate(first):
    places[letter] = places.get(letter, 0) | 1 << index
for letter in second:
    matched = flat & places[letter]
    flat = ((flat + matched) | (flat - matched)) & every
print(len(first) - bin(flat).count("1"))
