"""Measures as ir-measures names them, by trec_eval's rules, and tests of their differences."""
