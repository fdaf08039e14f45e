"""What becomes of mail that cannot be screened whole."""
