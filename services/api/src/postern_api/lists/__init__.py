"""Named lists: values that rules share."""
