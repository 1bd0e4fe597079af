"""Rewards of single tokens."""
