"""Which classes go: criteria, allocation, budgets."""
