first, second = input(), input()
length = start = 0
for letter in first:
    found = second.find(letter, start)
    if found >= 0:
        length += 1
        start = found + 1
print(length)
