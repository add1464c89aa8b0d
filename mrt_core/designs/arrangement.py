"""Where the layers of a design lie: each new one leaves those below it in sight."""

import numpy as np

from ..geometry import Box, Size

CANDIDATES = 48  # positions that are tried for a layer
OVERHANG = 0.45  # share of a layer's width, and of its height, that may hang out of the frame
MAX_HIDDEN = 0.6  # share of a layer that all layers above it may cover together


class Arrangement:
    """The boxes placed so far in a frame, bottom to top; one of them may cover at most `max_cover` of another."""

    def __init__(self, frame: Size, max_cover: float) -> None:
        self.frame, self.max_cover = frame, max_cover
        self.boxes = np.empty((6, 0))  # left, top, right, bottom in px; area; share that those above hide, or more

    def place(self, rng: np.random.Generator, size: tuple[int, int], overflow: bool) -> Box | None:
        """A random position of a new top layer, inside the frame or hanging out of it; None where no candidate is good."""
        width, height = size
        margin = OVERHANG if overflow else 0.0
        low = np.asarray([-margin * width, -margin * height])
        high = np.maximum(low, [self.frame.width - (1 - margin) * width, self.frame.height - (1 - margin) * height])
        x, y = np.rint(rng.uniform(low, high, (CANDIDATES, 2))).T[..., None]  # (C, 1) each
        left, top, right, bottom, area, hidden = self.boxes
        shared_x = np.minimum(x + width, right) - np.maximum(x, left)  # (C, N)
        shared_y = np.minimum(y + height, bottom) - np.maximum(y, top)
        covered = np.maximum(shared_x, 0) * np.maximum(shared_y, 0)  # px
        allowed = np.minimum(self.max_cover * np.minimum(area, width * height), (MAX_HIDDEN - hidden) * area)
        good = (covered <= allowed).all(1)
        if overflow:
            out_x, out_y = (x < 0) | (x + width > self.frame.width), (y < 0) | (y + height > self.frame.height)
            good &= (out_x | out_y)[:, 0]
        if not good.any():
            return None
        first = int(good.argmax())
        box = Box(int(x[first, 0]), int(y[first, 0]), width, height)
        self.boxes[5] += covered[first] / area
        new = [[box.x], [box.y], [box.right], [box.bottom], [box.area], [0.0]]
        self.boxes = np.concatenate([self.boxes, new], 1)
        return box
