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
        self.boxes = np.empty((0, 4))  # left, top, right, bottom
        self.hidden = np.empty(0)  # share of every box that those above it cover, or more where they overlap

    def place(self, rng: np.random.Generator, size: tuple[int, int], overflow: bool) -> Box | None:
        """A random position of a new top layer, inside the frame or hanging out of it; None where no candidate is good."""
        width, height = size
        margin = OVERHANG if overflow else 0.0
        low = np.asarray([-margin * width, -margin * height])
        high = np.maximum(low, [self.frame.width - (1 - margin) * width, self.frame.height - (1 - margin) * height])
        start = np.rint(rng.uniform(low, high, (CANDIDATES, 2)))  # (C, 2)
        end = start + size
        good = ((start < 0) | (end > self.frame)).any(1) if overflow else np.ones(CANDIDATES, bool)
        shared = np.minimum(end[:, None], self.boxes[:, 2:]) - np.maximum(
            start[:, None], self.boxes[:, :2]
        )  # (C, N, 2)
        covered = shared.clip(0).prod(-1)  # px (C, N)
        share = covered / (self.boxes[:, 2:] - self.boxes[:, :2]).prod(-1)  # of the lower layer
        good &= (np.maximum(share, covered / (width * height)) <= self.max_cover).all(1)
        good &= (self.hidden + share <= MAX_HIDDEN).all(1)
        if not good.any():
            return None
        first = int(good.argmax())
        self.boxes = np.concatenate([self.boxes, [[*start[first], *end[first]]]])
        self.hidden = np.concatenate([self.hidden + share[first], [0.0]])
        return Box(int(start[first, 0]), int(start[first, 1]), width, height)
