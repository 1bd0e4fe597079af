"""Rewards of text."""
