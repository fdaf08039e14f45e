"""Files of YARA rules."""
