"""From a checkpoint to a frozen, shared, callable module: loading, preprocessing, encoders."""
