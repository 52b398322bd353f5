import sys
from itertools import accumulate

amounts = map(int, sys.stdin.buffer.read().split()[1:])
balance = 0
for day, balance in enumerate(accumulate(amounts), 1):
    if balance < 0:
        print("overdrawn", day)
        break
else:
    print("solvent", balance)
