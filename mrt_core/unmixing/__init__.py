"""Layers that were taken from an image, made to show it again."""
