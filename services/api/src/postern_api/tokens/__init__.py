"""Tokens of the API and what they allow."""
