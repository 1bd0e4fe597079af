"""Rewards behind HTTP; needs the extra ``server``."""
