from mrt_core.geometry import Box, Size
from mrt_core.layouts.layout import Layout, Region, layer_prompt, name_unnamed

BOX = Box(0, 0, 10, 10)


def test_background_defaults_to_the_frame():
    assert Layout(Size(100, 50), ()).background_region == Region("Background", Box(0, 0, 100, 50))


def test_a_given_background_is_kept():
    background = Region("Sky", Box(-10, -10, 120, 70), "blue")
    assert Layout(Size(100, 50), (), background=background).background_region is background


def test_canvas_unites_frame_background_and_layers():
    regions = (Region("a", Box(90, 10, 30, 10)),)
    assert Layout(Size(100, 50), regions).canvas == Box(0, 0, 128, 64)
    enlarged = Region("Background", Box(-1, 0, 101, 50))
    assert Layout(Size(100, 50), regions, background=enlarged).canvas == Box(-16, 0, 144, 64)


def test_only_unnamed_regions_are_numbered_by_their_place():
    regions = [Region("", BOX, "one"), Region("Sun", BOX), Region("", BOX)]
    assert name_unnamed(regions) == (Region("Layer 1", BOX, "one"), Region("Sun", BOX), Region("Layer 3", BOX))


def test_layer_prompt_keeps_layer_order_and_spaces_inside_the_tags():
    regions = [Region("a", BOX, "a red car"), Region("b", BOX, " ein Löwe \n"), Region("c", BOX)]
    assert layer_prompt(regions) == "<layer> a red car </layer> <layer> ein Löwe </layer> <layer> </layer>"


def test_layer_prompt_of_no_layers_is_empty():
    assert layer_prompt([]) == ""
