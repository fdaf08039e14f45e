"""Relay domains: what Postern takes mail for, and which way it goes on."""
