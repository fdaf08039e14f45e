"""Alarms: what of streams, consumers, replicas and books an administrator has to look at, before a customer does."""
