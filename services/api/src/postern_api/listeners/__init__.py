"""The two gates as an administrator sees them: a part for each property sheet."""
