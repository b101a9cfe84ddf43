"""Exports to formats of other programs, one folder per format."""
