"""The four tasks as slots: which regions are in the sequence, and which of them are clean (paper section 3.2,
architecture: tasks).

Slot order and layer index are the same everywhere: composite 0, background 1, layers 2.. bottom to top. A condition slot
stands at the end and copies the position of the slot it conditions.
"""

from collections.abc import Collection

from ..errors import MRTError
from ..geometry import Box, TokenBox, frame_box, token_box
from ..layouts.layout import Layout, background_prompt, layer_prompt
from ..models.modes import Arrangement, Task
from ..models.sequence import Role, Slot, SlotLayout

FIRST_LAYER = 2  # layer index, and slot, of the lowest foreground layer
REFERENCE_INDEX = -1  # layer index of Qwen-Image-Layered's input image (architecture: Qwen-Image-Layered)
HARMONIZE = "Harmonize these layers"  # the fixed prompt of restyling (paper section 3.2)
EMPTY_PROMPT = " "
EDITING = (Task.ADD_LAYERS, Task.RESTYLE_LAYERS)  # the tasks that keep layers as they are


def _whole_canvas(canvas: Box) -> TokenBox:
    return token_box(canvas, canvas)


def _sample(layout: Layout, composite: Slot, clean_background: bool, noisy: Collection[int]) -> SlotLayout:
    """Composite, background and layers; the layers whose index in `layout.regions` is in `noisy` start as noise."""
    canvas = layout.canvas
    background = Slot(Role.BACKGROUND, 1, token_box(layout.background_region.box, canvas), clean_background)
    layers = [
        Slot(Role.LAYER, FIRST_LAYER + index, token_box(region.box, canvas), index not in noisy)
        for index, region in enumerate(layout.regions)
    ]
    whole = _whole_canvas(canvas)
    return SlotLayout((composite, background, *layers), whole.rows, whole.cols)


def text_to_layers(layout: Layout) -> SlotLayout:
    """Nothing is clean: composite, background and every layer are made together from the text."""
    composite = Slot(Role.COMPOSITE, 0, _whole_canvas(layout.canvas), False)
    return _sample(layout, composite, False, range(len(layout.regions)))


def image_to_layers(layout: Layout, arrangement: Arrangement = Arrangement.MRT) -> SlotLayout:
    """The image is clean and covers the frame alone: nobody can photograph what lies outside it."""
    image = Slot(Role.COMPOSITE, 0, token_box(frame_box(layout.frame), layout.canvas), True)
    if arrangement is Arrangement.MRT:
        return _sample(layout, image, False, range(len(layout.regions)))
    made = text_to_layers(layout)
    reference = image._replace(role=Role.CONDITION, layer_index=REFERENCE_INDEX)
    return made._replace(slots=(*made.slots, reference))


def add_layers(layout: Layout, targets: Collection[int]) -> SlotLayout:
    """Clean: a composite without the targets, the background, the other layers. `targets` index `layout.regions`."""
    check_targets(layout, targets)
    composite = Slot(Role.COMPOSITE, 0, _whole_canvas(layout.canvas), True)
    return _sample(layout, composite, True, targets)


def restyle_layers(layout: Layout, targets: Collection[int]) -> SlotLayout:
    """As `add_layers`, with one clean condition slot per target, in layer order, that holds the user's asset."""
    sample = add_layers(layout, targets)
    conditions = [
        slot._replace(role=Role.CONDITION, clean=True)
        for slot in sample.slots[FIRST_LAYER:]
        if slot.layer_index - FIRST_LAYER in targets
    ]
    return sample._replace(slots=(*sample.slots, *conditions))


def check_targets(layout: Layout, targets: Collection[int]) -> None:
    """Raise MRTError for targets that the layout does not have, and for none."""
    count = len(layout.regions)
    if not targets or not all(0 <= index < count for index in targets):
        raise MRTError(
            f"the target layers are {sorted(targets)}, but they must be one or more of the layout's {count} layers, "
            "counted from 0 at the bottom; name at least one that exists"
        )


def slot_layout(
    task: Task, layout: Layout, targets: Collection[int] = (), arrangement: Arrangement = Arrangement.MRT
) -> SlotLayout:
    """The slots of a task; `targets` matter to adding and restyling alone, `arrangement` to images."""
    if task is Task.TEXT_TO_LAYERS:
        return text_to_layers(layout)
    if task is Task.IMAGE_TO_LAYERS:
        return image_to_layers(layout, arrangement)
    return add_layers(layout, targets) if task is Task.ADD_LAYERS else restyle_layers(layout, targets)


def default_prompt(
    task: Task, layout: Layout, targets: Collection[int] = (), arrangement: Arrangement = Arrangement.MRT
) -> str:
    """The prompt of a task when the user gives none, in the forms that training prompts have.

    What is made is described by all captions that there are: text and image to layers by `layered_prompt`, adding by the
    targets' captions in their tags. Restyling has a fixed prompt. Qwen-Image-Layered, which knows no tags, gets a sentence.
    """
    if task is Task.RESTYLE_LAYERS:
        return HARMONIZE
    if task is Task.ADD_LAYERS:
        return layer_prompt(region for index, region in enumerate(layout.regions) if index in targets)
    if arrangement is Arrangement.QWEN_IMAGE_LAYERED:
        return layout.caption or describe(layout) or EMPTY_PROMPT
    return layered_prompt(layout) or EMPTY_PROMPT


def layered_prompt(layout: Layout) -> str:
    """Every layer's caption in its tags, in layer order, then the background's in its own, then the caption of the whole.

    Tags are left out where nothing stands in them: the background's without a caption, the layers' where none has one.
    """
    layers = layer_prompt(layout.regions) if any(region.caption.strip() for region in layout.regions) else ""
    return " ".join(filter(None, [layers, background_prompt(layout.background_region), layout.caption.strip()]))


def describe(layout: Layout) -> str:
    """The regions' captions as one sentence: "a, b and c on d"; empty where there are none."""
    parts = [region.caption for region in layout.regions if region.caption]
    foreground = " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))
    return " on ".join(filter(None, [foreground, layout.background_region.caption]))
