"""Contact sheets: what is drawn where."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torture import torture_stack

from mrt_core.documents.contact_sheet import Row, assemble_sheet, contact_sheet, save_sheet
from mrt_core.errors import MRTError
from mrt_core.geometry import Size
from mrt_core.stacks.layers import Layer, LayerStack


def solid(color: tuple[int, int, int, int], height: int, width: int) -> np.ndarray:
    return np.full((height, width, 4), color, np.uint8)


def test_overflow_is_drawn_outside_the_frame():
    red = Layer(solid((255, 0, 0, 255), 20, 20), -20, 0, "outside")
    sheet = np.asarray(contact_sheet(LayerStack(Size(80, 100), (red,)), tile=100))
    tile = sheet[8:108, 8:108]  # the composite: 100 x 100 px show x from -20 to 80, y from 0 to 100
    assert tile[10, 10].tolist() == [255, 0, 0]
    assert tile[50, 10].tolist() == [140, 150, 166]  # nothing, outside the frame
    assert tile[50, 20].tolist() == [20, 100, 255]  # the frame's outline
    assert {tuple(pixel) for pixel in tile[30:40, 30:40].reshape(-1, 3)} <= {(255, 255, 255), (218, 218, 218)}


def test_every_layer_has_a_tile_and_hidden_ones_are_shown():
    stack = torture_stack()
    sheet = contact_sheet(stack, "Torture", tile=64)
    assert sheet.size == (8 + 8 * 72, 8 + 26 + 2 * (64 + 36 + 8))  # 12 tiles in rows of 8, under a title
    hidden = Layer(solid((0, 255, 0, 255), 10, 10), 0, 0, "hidden", visible=False)
    sheet = np.asarray(contact_sheet(LayerStack(Size(10, 10), (hidden,)), tile=50))
    assert sheet[30, 30].tolist() != [0, 255, 0] and sheet[30, 88].tolist() == [0, 255, 0]


def test_rows_of_stacks_and_images():
    stack = LayerStack(Size(10, 10), (Layer(solid((9, 9, 9, 255), 10, 10), 0, 0, "a"),))
    images = [("rgb", solid((1, 2, 3, 255), 30, 60)[..., :3]), ("rgba", solid((1, 2, 3, 0), 4, 4))]
    sheet = assemble_sheet([Row("one", stack), Row("", images)], tile=60)
    assert sheet.size == (8 + 2 * 68, 8 + 26 + 2 * (60 + 36 + 8))
    second = np.asarray(sheet)[8 + 26 + 104 :]
    assert second[30, 30].tolist() == [1, 2, 3]  # 60 x 30, in the middle of its tile
    assert {tuple(pixel) for pixel in second[:60, 76:136].reshape(-1, 3)} <= {(255, 255, 255), (218, 218, 218)}


def test_far_layers_do_not_shrink_the_frame_to_nothing():
    far = Layer(solid((255, 0, 0, 255), 10, 10), 10**6, 0, "far")
    sheet = np.asarray(contact_sheet(LayerStack(Size(100, 100), (far,)), tile=90))
    row = sheet[8 + 5, 8 : 8 + 90]
    assert [20, 100, 255] in row[40:50].tolist() or (row[:44] >= 218).all()  # the frame takes half of the width


@pytest.mark.parametrize("name", ["", "x" * 500, "猫\n\0\ud83d", "🐈" * 90])
def test_any_name_can_be_drawn(name):
    contact_sheet(LayerStack(Size(5, 5), (Layer(solid((1, 1, 1, 1), 5, 5), 0, 0, name),)), name)


@pytest.mark.parametrize(("name", "other"), [("ÄÄ", "ÖÖ"), ("łł", "őő"), ("ΔΔ", "ΩΩ"), ("ДД", "ЖЖ")])
def test_names_in_european_scripts_are_readable_without_any_font_of_the_system(name, other):
    """A font without these letters draws the same box for all of them."""
    sheets = [
        contact_sheet(LayerStack(Size(5, 5), (Layer(solid((1, 1, 1, 1), 5, 5), 0, 0, n),))) for n in (name, other)
    ]
    assert not np.array_equal(*map(np.asarray, sheets))


def test_sheet_is_saved_as_png_and_not_over_another(tmp_path: Path):
    sheet = contact_sheet(LayerStack(Size(5, 5), ()))
    save_sheet(sheet, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.format == "PNG" and image.size == sheet.size
    with pytest.raises(MRTError, match="already exists"):
        save_sheet(sheet, tmp_path / "a.png")
