"""Health of the api itself: /livez and /readyz, without a token."""
