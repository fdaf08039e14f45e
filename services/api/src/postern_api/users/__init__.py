"""SMTP users of the authenticated gate."""
