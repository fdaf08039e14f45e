"""What runs, which revision it runs, and how full the bus is."""
