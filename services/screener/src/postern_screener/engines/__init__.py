"""Engines: what the screener asks about a message besides its own rules (docs/adr/0015-how-engines-are-asked.md).

answers.py   what they say, typed: the only thing that verdicts are made from
links.py     a bounded number of connections to one daemon, kept for the next question
clamd.py     ClamAV's daemon      rspamd.py   rspamd      yara.py   YARA-X, inside this process
breaker.py   when an engine that fails is left alone for a while
asking.py    asks those that a verdict needs, side by side, and keeps their health
"""
