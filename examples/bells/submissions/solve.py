from itertools import permutations

bells = "123456789"[: int(input())]
print("\n".join(map("".join, permutations(bells))))
