"""Preference data, training a reward model on it, and how well any reward agrees with it."""
