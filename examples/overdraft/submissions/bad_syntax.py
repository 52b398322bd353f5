days = int(input()
print("solvent", days)
