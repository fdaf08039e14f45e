"""The families of checks, a file each. A check is compiled from all rules of its family and yields `Hit`s, never a verdict."""
