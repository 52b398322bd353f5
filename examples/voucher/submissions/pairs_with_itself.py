from collections import Counter

n, voucher = map(int, input().split())
count = Counter(map(int, input().split()))
print(sum(times * count[voucher - price] for price, times in list(count.items())) // 2)
