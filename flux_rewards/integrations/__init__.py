"""One definition, every trainer: an adapter a trainer, each of which imports its trainer only when it is called."""
