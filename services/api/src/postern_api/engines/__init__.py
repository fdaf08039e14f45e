"""Engines that the screener asks: clamd, rspamd, YARA."""
