"""Wrappers that change HOW a reward runs, not what it says."""
