"""The slots of the four tasks (paper section 3.2, architecture: tasks): which there are, in which order, and which are
clean."""

from dataclasses import replace

import pytest

from mrt_core.errors import MRTError
from mrt_core.geometry import Box, Size, TokenBox
from mrt_core.layouts.layout import Layout, Region
from mrt_core.models.sequence import Role, Slot, slot_positions
from mrt_core.tasks.slots import Arrangement, Task, default_prompt, slot_layout

CANVAS = TokenBox(0, 0, 6, 7)  # of the shared layout: from (-16, -16) to (96, 80) px
FRAME = TokenBox(1, 1, 3, 4)
BOXES = (TokenBox(0, 0, 2, 3), TokenBox(1, 2, 3, 2), TokenBox(3, 3, 3, 4))


def layers(noisy):
    return tuple(Slot(Role.LAYER, 2 + index, box, index not in noisy) for index, box in enumerate(BOXES))


EDITED = {
    (1,): (Slot(Role.CONDITION, 3, BOXES[1], True),),
    (0, 2): (Slot(Role.CONDITION, 2, BOXES[0], True), Slot(Role.CONDITION, 4, BOXES[2], True)),
    (2, 0): (Slot(Role.CONDITION, 2, BOXES[0], True), Slot(Role.CONDITION, 4, BOXES[2], True)),
}


def test_text_to_layers_has_nothing_clean(layout):
    sample = slot_layout(Task.TEXT_TO_LAYERS, layout)
    expected = (Slot(Role.COMPOSITE, 0, CANVAS, False), Slot(Role.BACKGROUND, 1, FRAME, False), *layers({0, 1, 2}))
    assert sample.slots == expected
    assert (sample.canvas_rows, sample.canvas_cols) == (6, 7)


def test_image_to_layers_has_a_clean_composite_of_the_frame(layout):
    sample = slot_layout(Task.IMAGE_TO_LAYERS, layout)
    expected = (Slot(Role.COMPOSITE, 0, FRAME, True), Slot(Role.BACKGROUND, 1, FRAME, False), *layers({0, 1, 2}))
    assert sample.slots == expected
    assert (sample.canvas_rows, sample.canvas_cols) == (6, 7)


@pytest.mark.parametrize("targets", EDITED)
def test_add_layers_has_only_the_targets_noisy(layout, targets):
    sample = slot_layout(Task.ADD_LAYERS, layout, targets)
    expected = (Slot(Role.COMPOSITE, 0, CANVAS, True), Slot(Role.BACKGROUND, 1, FRAME, True), *layers(targets))
    assert sample.slots == expected


@pytest.mark.parametrize("targets", EDITED)
def test_restyle_layers_adds_a_condition_per_target(layout, targets):
    sample = slot_layout(Task.RESTYLE_LAYERS, layout, targets)
    assert sample.slots[: -len(targets)] == slot_layout(Task.ADD_LAYERS, layout, targets).slots
    assert sample.slots[-len(targets) :] == EDITED[targets]
    for condition in EDITED[targets]:
        target = sample.slots[condition.layer_index]  # slots stand in the order of their indices
        assert not target.clean
        assert slot_positions(condition, 6, 7).tolist() == slot_positions(target, 6, 7).tolist()


@pytest.mark.parametrize("task", [Task.TEXT_TO_LAYERS, Task.IMAGE_TO_LAYERS])
def test_targets_do_not_matter_to_the_other_tasks(layout, task):
    assert slot_layout(task, layout, (1,)) == slot_layout(task, layout)


@pytest.mark.parametrize("task", [Task.TEXT_TO_LAYERS, Task.IMAGE_TO_LAYERS])
def test_background_only(task):
    sample = slot_layout(task, Layout(Size(32, 16), ()))
    assert [slot.role for slot in sample.slots] == [Role.COMPOSITE, Role.BACKGROUND]


def test_background_with_a_box_of_its_own(layout):
    sample = slot_layout(Task.TEXT_TO_LAYERS, replace(layout, background=Region("Sky", Box(-16, -16, 112, 64))))
    assert sample.slots[1] == Slot(Role.BACKGROUND, 1, TokenBox(0, 0, 4, 7), False)


@pytest.mark.parametrize("task", [Task.ADD_LAYERS, Task.RESTYLE_LAYERS])
@pytest.mark.parametrize("targets", [(), (3,), (-1,), (0, 7)])
def test_wrong_targets(layout, task, targets):
    with pytest.raises(MRTError) as caught:
        slot_layout(task, layout, targets)
    message = str(caught.value)
    assert message.startswith(
        f"the target layers are {sorted(targets)}, but they must be one or more of the layout's 3 layers"
    )
    assert "\n" not in message


# Prompts


def test_default_prompts(layout):
    every = "<layer> a sun </layer> <layer> a red cat </layer> <layer> the word sale </layer>"
    whole = f"{every} <background> blue sky </background> a cat in the sun"
    assert default_prompt(Task.TEXT_TO_LAYERS, layout) == default_prompt(Task.IMAGE_TO_LAYERS, layout) == whole
    untagged = default_prompt(Task.IMAGE_TO_LAYERS, layout, arrangement=Arrangement.QWEN_IMAGE_LAYERED)
    assert untagged == "a cat in the sun"
    assert default_prompt(Task.RESTYLE_LAYERS, layout, (1,)) == "Harmonize these layers"
    assert default_prompt(Task.ADD_LAYERS, layout, (1,)) == "<layer> a red cat </layer>"
    both = "<layer> a sun </layer> <layer> the word sale </layer>"
    assert default_prompt(Task.ADD_LAYERS, layout, (2, 0)) == both  # in layer order


@pytest.mark.parametrize(
    ("captions", "background", "expected"),
    [
        (("a", "b"), "d", "<layer> a </layer> <layer> b </layer> <background> d </background>"),
        (("a", "", "c"), "", "<layer> a </layer> <layer> </layer> <layer> c </layer>"),
        (("", ""), "d", "<background> d </background>"),
        ((), "", " "),
    ],
)
def test_prompt_of_a_layout_without_a_caption(captions, background, expected):
    regions = tuple(Region("layer", Box(0, 0, 9, 9), caption) for caption in captions)
    layout = Layout(Size(32, 32), regions, "", Region("Background", Box(0, 0, 32, 32), background))
    assert default_prompt(Task.TEXT_TO_LAYERS, layout) == default_prompt(Task.IMAGE_TO_LAYERS, layout) == expected


@pytest.mark.parametrize(
    ("captions", "background", "expected"),
    [(("a", "b", "c"), "d", "a, b and c on d"), (("a",), "", "a"), (("", ""), "d", "d"), ((), "", " ")],
)
def test_sentence_for_a_model_that_knows_no_tags(captions, background, expected):
    regions = tuple(Region("layer", Box(0, 0, 9, 9), caption) for caption in captions)
    layout = Layout(Size(32, 32), regions, "", Region("Background", Box(0, 0, 32, 32), background))
    prompt = default_prompt(Task.IMAGE_TO_LAYERS, layout, arrangement=Arrangement.QWEN_IMAGE_LAYERED)
    assert prompt == expected


@pytest.mark.parametrize("task", [Task.TEXT_TO_LAYERS, Task.IMAGE_TO_LAYERS])
def test_every_caption_reaches_the_prompt(task, layout):
    prompt = default_prompt(task, layout)
    for region in (layout.background_region, *layout.regions):
        assert region.caption in prompt
    assert layout.caption in prompt
