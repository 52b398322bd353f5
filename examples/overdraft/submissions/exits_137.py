import sys

print("overdrawn 4")
sys.exit(137)
