"""What a checkpoint is made for: tasks, where it expects its input, and how regions are coded."""

from enum import StrEnum

REGION_MODES = ("crop", "halo", "full")  # `region_codec` says what each is


class Task(StrEnum):
    """What is given and what is made."""

    TEXT_TO_LAYERS = "text_to_layers"
    IMAGE_TO_LAYERS = "image_to_layers"
    ADD_LAYERS = "add_layers"
    RESTYLE_LAYERS = "restyle_layers"


class Arrangement(StrEnum):
    """Where a model expects the image that it takes apart.

    MRT has it as a clean composite; Qwen-Image-Layered as a reference beside a composite that is made
    (architecture: Qwen-Image-Layered).
    """

    MRT = "mrt"
    QWEN_IMAGE_LAYERED = "qwen_image_layered"
