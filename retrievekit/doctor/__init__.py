"""The doctor: what is wrong with a collection, found before hours are spent on it."""
