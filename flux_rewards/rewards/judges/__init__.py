"""Chat models as rewards."""
