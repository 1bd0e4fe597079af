"""Samples and scores as bytes, and back: exactly, and without anything that could act."""
