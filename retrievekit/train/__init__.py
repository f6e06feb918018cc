"""Training: losses, policy gradients and recipes for models that rank.

`losses` works on padded lists of scores, whatever made them, in anybody's trainer.
"""
