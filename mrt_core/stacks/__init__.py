"""Stacks of RGBA layers, and how they are composited."""
