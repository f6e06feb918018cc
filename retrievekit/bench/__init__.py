"""Benchmarks: systems by data sets, measured, compared and written down."""
