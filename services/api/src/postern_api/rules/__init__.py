"""Screening rules: condition, action, order."""
