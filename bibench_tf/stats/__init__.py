"""Metrics, confidence intervals and the bootstrap; every formula stands here once."""
