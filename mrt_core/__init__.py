"""MRT, the Masked Region Transformer, as a PyTorch library: a layout of boxes in, separate RGBA layers out."""

__version__ = "0.1.0"
