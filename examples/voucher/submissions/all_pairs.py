n, voucher = map(int, input().split())
prices = list(map(int, input().split()))
pairs = 0
for i in range(n):
    for j in range(i):
        if prices[i] + prices[j] == voucher:
            pairs += 1
print(pairs)
