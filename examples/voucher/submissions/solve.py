import sys
from collections import Counter

words = sys.stdin.buffer.read().split()
voucher = int(words[1])
count = Counter(map(int, words[2:]))
ordered = sum(times * count.get(voucher - price, 0) for price, times in count.items())
if voucher % 2 == 0:
    ordered -= count.get(voucher // 2, 0)  # an item is no pair with itself
print(ordered // 2)
