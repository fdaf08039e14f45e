"""The ledger: accepted = dispositions + in flight, always."""
