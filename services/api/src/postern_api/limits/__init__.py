"""Limits of the two gates."""
