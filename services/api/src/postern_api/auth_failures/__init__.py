"""Failed logins at the authenticated gate, as its replicas know them, and which app-passwords they saw."""
