"""Layouts: which box each layer has, read from JSON or other tools' boxes, and drawn."""
