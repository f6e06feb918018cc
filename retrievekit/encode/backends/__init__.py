"""What computes a transformer: torch itself, or a runtime that its layers are handed to."""
