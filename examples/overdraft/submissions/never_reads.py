print("solvent 0")
