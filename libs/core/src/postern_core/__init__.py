"""What every Postern service shares: the words of mail, the contracts on the bus, and the bus itself.

Knows no SMTP server, no database and no HTTP framework (import-linter keeps that).
"""
