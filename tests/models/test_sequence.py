"""The packed sequence, and what the transformer makes of it: regions, several samples, clean and condition tokens."""

import pytest
import torch
import torch.nn.functional as F

from mrt_core.geometry import Box, Size, TokenBox
from mrt_core.layouts.layout import Layout, Region
from mrt_core.models.sequence import (
    BOX_CENTRE,
    Role,
    Slot,
    SlotLayout,
    TextAnchors,
    pack_samples,
    patchify,
    slot_positions,
    split_slots,
    text_positions,
    text_start,
    unpatchify,
)
from mrt_core.tasks.slots import image_to_layers, text_to_layers

TEXT_WIDTH = 48


def layer(index, box, clean=False, role=Role.LAYER):
    return Slot(role, index, TokenBox(*box), clean)


def random_inputs(sample, text_tokens=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(sample.token_count, 64, generator=generator)
    return tokens, torch.randn(text_tokens, TEXT_WIDTH, generator=generator)


# Patches


@pytest.mark.parametrize("shape", [(16, 2, 2), (16, 6, 10), (3, 16, 4, 2)])
def test_patchify_round_trip(shape):
    latent = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    tokens = patchify(latent)
    rows, cols = shape[-2] // 2, shape[-1] // 2
    assert tokens.shape == (*shape[:-3], rows * cols, 64)
    assert torch.equal(unpatchify(tokens, rows, cols), latent)


def test_patchify_channel_and_token_order():
    rows, cols = 2, 3
    latent = torch.arange(16 * 2 * rows * 2 * cols).reshape(16, 2 * rows, 2 * cols)
    tokens = patchify(latent)
    for row in range(rows):
        for col in range(cols):
            for c in range(16):
                for dy in range(2):
                    for dx in range(2):
                        expected = latent[c, 2 * row + dy, 2 * col + dx]
                        assert tokens[row * cols + col, c * 4 + dy * 2 + dx] == expected


def test_split_slots_undoes_packing():
    slots = (layer(0, (0, 0, 3, 4)), layer(1, (1, 1, 1, 2)), layer(2, (2, 0, 1, 1)))
    latents = [torch.randn(16, 2 * slot.box.rows, 2 * slot.box.cols) for slot in slots]
    packed = torch.cat([patchify(latent) for latent in latents])
    parts = split_slots(packed, SlotLayout(slots, 3, 4))
    assert all(torch.equal(*pair) for pair in zip(parts, latents, strict=True))


# Positions


@pytest.mark.parametrize(
    ("rows", "cols", "row_positions", "col_positions"),
    [
        (4, 6, [-2, -1, 0, 1], [-3, -2, -1, 0, 1, 2]),
        (5, 3, [-3, -2, -1, 0, 1], [-2, -1, 0]),
        (1, 2, [-1], [-1, 0]),
    ],
)
def test_whole_canvas_positions_are_centred(rows, cols, row_positions, col_positions):
    expected = [[7, row, col] for row in row_positions for col in col_positions]
    assert slot_positions(layer(7, (0, 0, rows, cols)), rows, cols).tolist() == expected


@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (2, 5), (3, 4), (5, 3), (6, 6)])
def test_region_positions_are_a_crop_of_the_canvas(rows, cols):
    whole = slot_positions(layer(3, (0, 0, rows, cols)), rows, cols).reshape(rows, cols, 3)
    for top in range(rows):
        for left in range(cols):
            for height in range(1, rows - top + 1):
                for width in range(1, cols - left + 1):
                    positions = slot_positions(layer(3, (top, left, height, width)), rows, cols)
                    crop = whole[top : top + height, left : left + width]
                    assert torch.equal(positions, crop.reshape(-1, 3))


@pytest.mark.parametrize(
    "boxes",
    [
        [Box(0, 0, 64, 48)],
        [Box(-10, -6, 30, 20), Box(41, 35, 45, 33)],
        [Box(-100, 5, 20, 20), Box(3, 40, 10, 100), Box(16, 16, 16, 16)],
    ],
)
@pytest.mark.parametrize("frame", [Size(64, 48), Size(80, 80), Size(50, 33)])
def test_regions_of_a_layout_lie_on_the_canvas_grid(frame, boxes):
    """The composite knows where every frame pixel lies; a region that covers that pixel must agree."""
    layout = Layout(frame, tuple(Region(str(number), box) for number, box in enumerate(boxes)))
    canvas, sample = layout.canvas, text_to_layers(layout)
    whole = slot_positions(sample.slots[0], sample.canvas_rows, sample.canvas_cols)
    grid = whole.reshape(sample.canvas_rows, sample.canvas_cols, 3)
    for slot, box in zip(sample.slots[2:], boxes, strict=True):
        positions = slot_positions(slot, sample.canvas_rows, sample.canvas_cols)
        top, left = (int(edge) for edge in ((box.y - canvas.y) // 16, (box.x - canvas.x) // 16))
        bottom, right = (int(-(-edge // 16)) for edge in (box.bottom - canvas.y, box.right - canvas.x))
        assert torch.equal(positions[:, 1:], grid[top:bottom, left:right, 1:].reshape(-1, 2))
        assert positions[:, 0].unique().tolist() == [slot.layer_index]


@pytest.mark.parametrize(
    ("rows", "cols", "indices", "start"),
    [(4, 6, [0, 1, 2], 3), (9, 6, [0, 1, 2], 4), (2, 2, [0, 1, 2, 3, 4], 5), (3, 3, [0], 1), (10, 4, [0, 1, 2, 3], 5)],
)
def test_text_starts_past_canvas_and_layers(rows, cols, indices, start):
    slots = [layer(index, (0, 0, 1, 1)) for index in indices]
    assert text_start(slots, rows, cols) == start
    condition = slots[-1]._replace(role=Role.CONDITION, clean=True)
    assert text_start([*slots, condition], rows, cols) == start  # it copies a position and adds none
    batch = pack_samples([SlotLayout(tuple(slots), rows, cols)], [torch.zeros(3, TEXT_WIDTH)])
    assert batch.text_positions.tolist() == [[start + k] * 3 for k in range(3)]


@pytest.mark.parametrize(("rows", "cols", "layers"), [(4, 6, 2), (5, 3, 1), (3, 3, 9)])
def test_full_boxes_have_the_positions_of_qwen_image_layered(rows, cols, layers):
    """Qwen-Image-Layered: whole canvases with indices 0 (composite) and 1..N bottom to top
    (architecture: Qwen-Image-Layered)."""
    frame = Size(16 * cols, 16 * rows)
    layout = Layout(frame, tuple(Region(str(n), Box(0, 0, *frame)) for n in range(layers)))
    count = layers + 1  # its layers include the background
    grid = [(row - (rows - rows // 2), col - (cols - cols // 2)) for row in range(rows) for col in range(cols)]
    expected = [[index, *place] for index in range(count + 1) for place in grid]
    start = max(rows // 2, cols // 2, count + 1)
    for sample in (text_to_layers(layout), image_to_layers(layout)):
        batch = pack_samples([sample], [torch.zeros(2, TEXT_WIDTH)])
        assert batch.positions.tolist() == expected
        assert batch.text_positions.tolist() == [[start] * 3, [start + 1] * 3]


# Packed regions against a masked full grid


MASKED_CASES = {
    "even canvas": (4, 6, [(0, 0, 4, 6), (0, 0, 2, 3), (3, 5, 1, 1), (1, 2, 3, 2)]),
    "odd canvas": (5, 3, [(0, 0, 5, 3), (1, 0, 3, 3), (4, 2, 1, 1)]),
    "no composite": (3, 4, [(2, 3, 1, 1), (0, 1, 2, 2)]),
}


@pytest.mark.parametrize("name", MASKED_CASES)
@torch.no_grad()
def test_packed_regions_equal_a_masked_full_grid(make_transformer, name):
    """The same model over whole canvases, where an attention mask hides every token outside the boxes."""
    rows, cols, boxes = MASKED_CASES[name]
    model, timestep = make_transformer(), torch.tensor([0.6])
    slots = tuple(layer(index, box, clean=index % 2 == 1) for index, box in enumerate(boxes))
    packed = SlotLayout(slots, rows, cols)
    full = SlotLayout(tuple(slot._replace(box=TokenBox(0, 0, rows, cols)) for slot in slots), rows, cols)

    grid_tokens, text = random_inputs(full)
    inside = torch.zeros(len(slots), rows, cols, dtype=torch.bool)
    for number, slot in enumerate(slots):
        box = slot.box
        inside[number, box.row : box.row + box.rows, box.col : box.col + box.cols] = True
    inside = inside.flatten()
    keys = torch.cat([torch.ones(len(text), dtype=torch.bool), inside])

    def attend(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=keys[None, None, None])

    expected = model(grid_tokens, timestep, pack_samples([full], [text]), attend)[inside]
    actual = model(grid_tokens[inside], timestep, pack_samples([packed], [text]))
    assert (actual - expected).abs().max() < 1e-5
    unmasked = model(grid_tokens, timestep, pack_samples([full], [text]))[inside]
    if not inside.all():
        assert (actual - unmasked).abs().max() > 1e-3  # the hidden tokens would matter


# Several samples


@torch.no_grad()
def test_samples_in_one_batch_equal_each_alone(make_transformer):
    model = make_transformer()
    samples = [
        SlotLayout((layer(0, (0, 0, 4, 5)), layer(1, (1, 1, 2, 2), clean=True)), 4, 5),
        SlotLayout((layer(0, (0, 0, 2, 2), clean=True), layer(2, (0, 1, 2, 1), clean=True, role=Role.CONDITION)), 2, 2),
        SlotLayout((layer(0, (0, 0, 3, 1)), layer(1, (0, 0, 1, 1)), layer(2, (2, 0, 1, 1))), 3, 1),
    ]
    timesteps = torch.tensor([0.9, 0.35, 0.05])
    inputs = [
        random_inputs(sample, length, seed)
        for seed, (sample, length) in enumerate(zip(samples, (7, 1, 4), strict=True))
    ]
    alone = [
        model(tokens, timesteps[i, None], pack_samples([samples[i]], [text])) for i, (tokens, text) in enumerate(inputs)
    ]
    for order in ([0, 1], [2, 0, 1]):
        batch = pack_samples([samples[i] for i in order], [inputs[i][1] for i in order])
        together = model(torch.cat([inputs[i][0] for i in order]), timesteps[order], batch)
        for part, i in zip(together.split(batch.lengths), order, strict=True):
            assert (part - alone[i]).abs().max() < 1e-5


# Clean tokens


MIXED = SlotLayout(
    (layer(0, (0, 0, 3, 4), clean=True), layer(1, (0, 0, 2, 4)), layer(2, (1, 1, 2, 1), clean=True)), 3, 4
)
CLEAN = MIXED.expand([slot.clean for slot in MIXED.slots])


def silent(q, k, v):
    """Attention that tells no token anything about another, so that each shows its own modulation alone."""
    return torch.zeros_like(q)


def hidden_states(model, sample, timestep, attend=silent):
    """The image tokens after the last block, before the output norm, which always follows the sample's noise level."""
    tokens, text = random_inputs(sample)
    kept = []
    handle = model.transformer_blocks[-1].register_forward_hook(lambda module, inputs, output: kept.append(output[0]))
    model(tokens, torch.tensor([timestep]), pack_samples([sample], [text]), attend)
    handle.remove()
    return kept[0]


@torch.no_grad()
def test_clean_tokens_are_modulated_as_at_noise_level_zero(make_transformer):
    model = make_transformer()
    all_noisy = MIXED._replace(slots=tuple(slot._replace(clean=False) for slot in MIXED.slots))
    low, high = (hidden_states(model, MIXED, timestep) for timestep in (0.2, 0.9))
    assert torch.equal(low[CLEAN], high[CLEAN])
    assert (low - high)[~CLEAN].abs().max() > 1e-2
    assert (low - hidden_states(model, all_noisy, 0.0))[CLEAN].abs().max() < 1e-5
    assert (low - hidden_states(model, all_noisy, 0.2))[~CLEAN].abs().max() < 1e-5


@torch.no_grad()
def test_at_noise_level_zero_clean_and_noisy_are_the_same(make_transformer):
    model = make_transformer()
    all_noisy = MIXED._replace(slots=tuple(slot._replace(clean=False) for slot in MIXED.slots))
    attend = F.scaled_dot_product_attention
    difference = hidden_states(model, MIXED, 0.0, attend) - hidden_states(model, all_noisy, 0.0, attend)
    assert difference.abs().max() < 1e-6


@torch.no_grad()
def test_shared_clean_timestep_follows_the_sample(make_transformer):
    model = make_transformer(clean_timestep="shared")
    all_noisy = MIXED._replace(slots=tuple(slot._replace(clean=False) for slot in MIXED.slots))
    assert torch.equal(hidden_states(model, MIXED, 0.4), hidden_states(model, all_noisy, 0.4))


# Condition tokens


CONDITIONED = SlotLayout((*MIXED.slots, layer(1, (0, 0, 2, 4), clean=True, role=Role.CONDITION)), 3, 4)
IS_CONDITION = CONDITIONED.expand([slot.role is Role.CONDITION for slot in CONDITIONED.slots])


def run(model, sample, attend=F.scaled_dot_product_attention):
    tokens, text = random_inputs(sample)
    return model(tokens, torch.tensor([0.5]), pack_samples([sample], [text]), attend)


def test_condition_slots_copy_positions_and_are_marked():
    batch = pack_samples([CONDITIONED], [torch.zeros(1, TEXT_WIDTH)])
    noisy = ~batch.clean
    assert torch.equal(batch.condition, IS_CONDITION)
    assert torch.equal(batch.positions[batch.condition], batch.positions[noisy])
    assert bool(batch.clean[batch.condition].all())


@torch.no_grad()
def test_zero_condition_embedding_changes_nothing(make_transformer):
    model = make_transformer()
    plain = make_transformer(condition_embedding=False)
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if k != "cond_token_embed.weight"})
    changed = run(model, CONDITIONED)
    assert (changed - run(plain, CONDITIONED)).abs().max() > 1e-3
    model.cond_token_embed.weight.zero_()
    assert torch.equal(run(model, CONDITIONED), run(plain, CONDITIONED))


@torch.no_grad()
def test_condition_embedding_acts_on_condition_tokens_alone(make_transformer):
    model = make_transformer()
    embedding = model.cond_token_embed.weight
    with_embedding, without_conditions = run(model, CONDITIONED, silent), run(model, MIXED)
    whole = run(model, CONDITIONED)

    value = embedding.clone()
    embedding.zero_()
    silent_difference = (with_embedding - run(model, CONDITIONED, silent)).abs().amax(dim=1)
    assert bool((silent_difference[IS_CONDITION] > 1e-4).all())
    assert bool((silent_difference[~IS_CONDITION] == 0).all())
    assert torch.equal(without_conditions, run(model, MIXED))  # no condition tokens: its value does not matter

    marks = IS_CONDITION[:, None].float()
    handle = model.img_in.register_forward_hook(lambda module, inputs, output: output + marks * value)
    by_hand = run(model, CONDITIONED)
    handle.remove()
    assert torch.equal(whole, by_hand)
    assert (whole - run(model, CONDITIONED))[~IS_CONDITION].abs().max() > 1e-4  # others hear of it by attention


# Text positions


def test_a_caption_stands_where_its_layer_lies():
    slots = (
        Slot(Role.COMPOSITE, 0, TokenBox(0, 0, 8, 8), False),
        Slot(Role.BACKGROUND, 1, TokenBox(0, 0, 8, 8), False),
        Slot(Role.LAYER, 2, TokenBox(0, 0, 3, 3), True),  # given: no caption is about it
        Slot(Role.LAYER, 3, TokenBox(2, 4, 3, 2), False),
        Slot(Role.LAYER, 4, TokenBox(6, 6, 2, 2), False),
    )
    sample = SlotLayout(slots, 8, 8)
    anchors = TextAnchors(torch.tensor([-1, 0, 0, 1, 1, -1]), torch.full((6,), BOX_CENTRE))
    positions = text_positions(sample, 6, anchors)
    assert positions[[1, 2]].tolist() == [[3, -1, 1]] * 2  # row 2 + 3 // 2 - 4, col 4 + 2 // 2 - 4
    assert positions[[3, 4]].tolist() == [[4, 3, 3]] * 2
    assert positions[[0, 5]].tolist() == [[1, 0, 0]] * 2  # the whole: at the background's centre
    assert text_positions(sample, 6)[:, 0].tolist() == [5, 6, 7, 8, 9, 10]  # a model that knows of no captions


def test_captions_without_a_layer_stand_in_sequence():
    sample = SlotLayout((Slot(Role.BACKGROUND, 1, TokenBox(0, 0, 2, 2), False),), 2, 2)
    anchors = TextAnchors(torch.tensor([0, 0, 1]), torch.tensor([BOX_CENTRE, BOX_CENTRE, 0.5]))
    assert torch.equal(text_positions(sample, 3, anchors), text_positions(sample, 3))


def test_letters_stand_along_the_middle_row_of_their_box():
    slots = (
        Slot(Role.BACKGROUND, 1, TokenBox(0, 0, 4, 9), False),
        Slot(Role.LAYER, 2, TokenBox(1, 2, 3, 6), False),
    )
    anchors = TextAnchors(torch.tensor([0, 0, 0, -1]), torch.tensor([1 / 8, 7 / 8, BOX_CENTRE, 1 / 2]))
    positions = text_positions(SlotLayout(slots, 4, 9), 4, anchors)
    left = 2 - (9 - 9 // 2)  # the box's first column on the centred canvas
    assert positions[:3].tolist() == [[2, 0, left + 0.25], [2, 0, left + 4.75], [2, 0, left + 3]]
    assert positions[3].tolist() == [1, 0, -5 + 4]  # the middle of the background's nine columns
