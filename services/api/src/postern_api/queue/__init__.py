"""The retry queue and badmail: delivery's, asked over the bus."""
