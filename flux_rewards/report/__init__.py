"""Statistics of rewards."""
