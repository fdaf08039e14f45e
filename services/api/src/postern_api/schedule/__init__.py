"""The retry schedule of deferred mail."""
