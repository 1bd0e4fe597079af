"""The rewards themselves, by what they look at."""
