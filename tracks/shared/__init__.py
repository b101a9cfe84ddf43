"""Shared by tracks: results of runs and their conditions, and values over several seeds."""
