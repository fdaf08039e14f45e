"""Routes: where mail goes on to, and how."""
