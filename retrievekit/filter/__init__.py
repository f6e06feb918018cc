"""Stages that drop hits on purpose."""
