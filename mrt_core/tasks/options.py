"""How a user wants a job sampled, and the noise levels that follow from it and the checkpoint's own settings."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..checkpoints.info import Sampling
from ..models.sequence import SlotLayout
from ..sampling.samplers import Progress
from ..sampling.schedule import shifted_sigmas, teacher_sigmas
from ..unmixing.refinement import SLACK
from .slots import EMPTY_PROMPT


@dataclass(frozen=True)
class SamplingOptions:
    """How to sample; None takes the checkpoint's own setting. One stack is made per seed, all in one call.

    `renormalise`: guided predictions keep the length that they have without guidance. `frame_area`: px to sample at.
    `match_image`: layers taken from an image get its outlines and colours, so that together they show it (see `unmixing`).
    `box_slack`: how much too small a box may be for that, in parts of the frame's mean side; layers grow past such boxes.
    `progress(step, steps, x0)` is called after every step; an exception that it raises stops the sampling.
    """

    seeds: tuple[int, ...] = (0,)
    steps: int | None = None
    cfg: float | None = None
    shift: float | None = None
    negative: str = EMPTY_PROMPT
    renormalise: bool = True
    frame_area: int | None = None
    match_image: bool = True
    box_slack: float = SLACK
    progress: Progress | None = None


DEFAULTS = SamplingOptions()  # everything as the checkpoint has it


def noise_levels(slots: SlotLayout, settings: Sampling, options: SamplingOptions) -> Tensor:
    """The schedule (steps + 1,) of a run: the user's steps and shift, else the checkpoint's, else the teacher's rule."""
    if settings.sigmas is not None and options.steps in (None, settings.steps) and options.shift is None:
        return torch.tensor(settings.sigmas)
    steps = settings.steps if options.steps is None else options.steps
    shift = settings.shift if options.shift is None else options.shift
    if shift is None:
        return teacher_sigmas(steps, slots.canvas_rows * slots.canvas_cols)
    return shifted_sigmas(steps, shift)
