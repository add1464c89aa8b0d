"""OpenRaster (.ora): a ZIP of PNG layers and an XML tree, which Krita, GIMP and MyPaint open; written and read.

Source: OpenRaster specification 0.0.6, "File layout", "Layer stack".
"""

from .reader import load_ora
from .writer import save_ora

__all__ = ["load_ora", "save_ora"]
