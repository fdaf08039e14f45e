"""Rule sets: for what mail the rules in them are."""
