"""How much a document may unpack to: a small file can describe a very large one."""

from ..errors import MRTError
from ..geometry import Size
from .wording import shown

MAX_PIXELS = 2**29  # over all layers of a document: 2 GiB of 8-bit RGBA
_FREE_PIXELS = 2**26  # what any file may unpack to
_PIXELS_PER_BYTE = 256  # an entirely flat RGBA PNG or ZIP channel; run-length coding stays below 16
MAX_SIDE = 300_000  # px of a frame; what PSB ends at, and no format goes further


class BudgetError(MRTError):
    """A document is too large as a whole."""


def check_frame(frame: Size, where: str) -> None:
    """Raise MRTError for a frame that no picture has."""
    if not (1 <= frame.width <= MAX_SIDE and 1 <= frame.height <= MAX_SIDE):
        sides = f"{shown(frame.width)} x {shown(frame.height)} px"
        raise MRTError(
            f'"{where}" says that it is {sides}, and a document has 1 to {MAX_SIDE} px a side; save it again.'
        )


class PixelBudget:
    """Counts the pixels of a document's layers before they are unpacked; `file_bytes` is the document's size on disk."""

    def __init__(self, file_bytes: int) -> None:
        self.limit = min(MAX_PIXELS, _FREE_PIXELS + _PIXELS_PER_BYTE * file_bytes)
        self.used = 0

    def spend(self, name: str, width: int, height: int) -> None:
        """Reserve `width` x `height` pixels for the layer `name`; raises BudgetError when the document would exceed the limit."""
        self.used += max(width, 0) * max(height, 0)
        if self.used > self.limit:
            raise BudgetError(
                f"With the {width} x {height} px of {shown(name)} the document unpacks to {self.used} pixels, and {self.limit} "
                "are allowed for a file of its size; crop or merge its layers."
            )
