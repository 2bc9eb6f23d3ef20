"""What `usage.py` is made of: prices, budgets, the form in the store, and the ledger that adds each report once."""
