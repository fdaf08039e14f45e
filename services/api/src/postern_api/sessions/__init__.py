"""The sessions that are open at the gates now: asked of each replica over the bus."""
