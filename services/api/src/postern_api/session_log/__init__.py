"""The session log: records of the gates, with the W3C fields of old."""
