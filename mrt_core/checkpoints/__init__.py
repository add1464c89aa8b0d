"""Checkpoints: what a file is, whether it fits, and the models in it."""
