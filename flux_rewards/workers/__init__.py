"""Calls in worker processes that can be killed: time limits that hold."""
