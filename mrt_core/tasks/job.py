"""A job: a request as one checkpoint runs it, with its slots, worked out once."""

import logging
from dataclasses import dataclass, replace

from ..checkpoints.info import CheckpointInfo
from ..models.sequence import SlotLayout
from .request import Request
from .scaling import bucket_frame, scale_assets, scale_layout, scale_stack, working_frame
from .slots import Arrangement, slot_layout

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A request as it was `asked`, the same as it is `sampled` (smaller, for a small model), and the slots of the latter."""

    asked: Request
    sampled: Request
    slot_layout: SlotLayout
    region_mode: str = "crop"


def job_for(request: Request, info: CheckpointInfo | None = None, frame_area: int | None = None) -> Job:
    """The job of a request for a checkpoint; without one it is sampled just as it is.

    `frame_area` (px) replaces the area that the checkpoint was trained at.
    """
    sampled = request if info is None else adapted(request, info, frame_area)
    slots = slot_layout(sampled.task, sampled.layout, sampled.targets, sampled.arrangement)
    return Job(request, sampled, slots) if info is None else Job(request, sampled, slots, info.region_mode)


def adapted(request: Request, info: CheckpointInfo, frame_area: int | None = None) -> Request:
    """The request at a size that a checkpoint knows, with the image where it expects it.

    MRT keeps the frame's own size unless it is much larger than `frame_area`, in px; Qwen-Image-Layered always works in one of
    its buckets.
    """
    request = replace(request, arrangement=info.arrangement)
    area, own = frame_area or info.frame_area, request.layout.frame
    frame = working_frame(own, area) if info.arrangement is Arrangement.MRT else bucket_frame(own, area)
    if frame == own:
        return request
    log.info("sampling at %d x %d px, the size that the checkpoint knows", *frame)
    layout = scale_layout(request.layout, frame)
    stack = scale_stack(request.stack, frame)
    return replace(request, layout=layout, stack=stack, assets=scale_assets(request.assets, layout))
