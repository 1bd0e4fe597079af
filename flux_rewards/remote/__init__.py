"""Rewards that another process computes."""
