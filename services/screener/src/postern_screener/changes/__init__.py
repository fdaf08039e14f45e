"""How mail is changed (docs/adr/0016): changes become *edits* of the bytes as received, and nothing outside of an edit is touched."""
