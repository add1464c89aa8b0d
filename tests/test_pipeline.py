"""The pipeline with small random modules: what stays untouched, what is reproducible, and what is refused."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from mrt_core import pipeline as pipeline_module
from mrt_core.checkpoints.checkpoint import Checkpoint, Sampling
from mrt_core.errors import MRTError
from mrt_core.geometry import Box, Size
from mrt_core.layouts.layout import Layout, Region
from mrt_core.models.sequence import Role, patchify
from mrt_core.pipeline import Pipeline, SamplingOptions
from mrt_core.sampling.schedule import shifted_sigmas, teacher_sigmas
from mrt_core.stacks.layers import Layer, LayerStack, composite
from mrt_core.tasks import job as job_module
from mrt_core.tasks.job import job_for
from mrt_core.tasks.options import noise_levels
from mrt_core.tasks.realise import clean_pixels
from mrt_core.tasks.region_codec import RegionCodec, canvas_regions
from mrt_core.tasks.request import Request, insert_regions, with_background
from mrt_core.tasks.slots import Task

STUDENT = Sampling(steps=3, cfg=1.0, sigmas=(1.0, 0.7, 0.3, 0.0), solver="renoise")


def pipeline_of(checkpoint, **info) -> Pipeline:
    changed = Checkpoint(
        checkpoint.transformer, checkpoint.autoencoder, checkpoint.text_encoder, replace(checkpoint.info, **info)
    )
    return Pipeline(changed, checkpoint.text_encoder, RegionCodec(checkpoint.autoencoder))


@pytest.fixture
def pipeline(checkpoint) -> Pipeline:
    return pipeline_of(checkpoint)


@pytest.fixture
def requests(layout, stack, make_image) -> dict[Task, Request]:
    """One request per task, on the shared layout."""
    image = LayerStack(layout.frame, (Layer(composite(stack), 0, 0, "Image"),))
    assets = {0: make_image(30, 20, 30), 2: make_image(31, 33, 45)}
    return {
        Task.TEXT_TO_LAYERS: Request(Task.TEXT_TO_LAYERS, layout, LayerStack(layout.frame, ()), "a cat"),
        Task.IMAGE_TO_LAYERS: Request(Task.IMAGE_TO_LAYERS, layout, image, " "),
        Task.ADD_LAYERS: Request(Task.ADD_LAYERS, layout, stack, "a red cat", (1,)),
        Task.RESTYLE_LAYERS: Request(Task.RESTYLE_LAYERS, layout, stack, "Harmonize", (0, 2), assets),
    }


def same_pixels(a: LayerStack, b: LayerStack) -> bool:
    return all(np.array_equal(x.pixels, y.pixels) for x, y in zip(a.layers, b.layers, strict=True))


def same_layer(a: Layer, b: Layer) -> bool:
    """Equal in everything, pixels to the bit."""
    return np.array_equal(a.pixels, b.pixels) and {**vars(a), "pixels": None} == {**vars(b), "pixels": None}


# Clean slots


@pytest.mark.parametrize(
    "sampling", [Sampling(steps=2, cfg=2.5), Sampling(steps=3, cfg=1.0), STUDENT], ids=["cfg", "plain", "student"]
)
@pytest.mark.parametrize("task", Task)
@torch.inference_mode()
def test_clean_slots_come_out_bit_identical(checkpoint, requests, task, sampling):
    pipeline, request = pipeline_of(checkpoint, sampling=sampling), requests[task]
    run = pipeline.prepare(request, SamplingOptions(seeds=(1, 2)))
    sample, pixels = run.job.slot_layout, clean_pixels(run.job)
    clean = [sample.slots[number] for number in pixels]
    assert clean == [slot for slot in sample.slots if slot.clean]
    expected = [
        patchify(latent) for latent in pipeline.codec.encode(list(pixels.values()), canvas_regions(sample, clean))
    ]
    packed = pipeline.sample(run)
    slots = [tokens.split([slot.box.count for slot in sample.slots]) for tokens in packed]
    for parts in slots:
        assert all(torch.equal(parts[n], tokens) for n, tokens in zip(pixels, expected, strict=True))
    for number in set(range(len(sample.slots))) - set(pixels):
        assert bool(slots[0][number].isfinite().all())
        assert not torch.equal(slots[0][number], slots[1][number])  # made anew from each seed's noise


@pytest.mark.parametrize("task", Task)
@torch.inference_mode()
def test_the_model_sees_clean_slots_unchanged_at_every_step(checkpoint, requests, task, monkeypatch):
    pipeline, request, seen = pipeline_of(checkpoint, sampling=Sampling(steps=3, cfg=1.0)), requests[task], []
    forward = type(pipeline.transformer).forward

    def record(self, tokens, timestep, batch, **rest):
        seen.append((tokens.clone(), timestep, batch))
        return forward(self, tokens, timestep, batch, **rest)

    monkeypatch.setattr(type(pipeline.transformer), "forward", record)
    run = pipeline.prepare(request, SamplingOptions(seeds=(4,)))
    (result,) = pipeline.sample(run)
    assert [float(timestep) for _, timestep, _ in seen] == run.sigmas[:-1].tolist()
    for tokens, _, batch in seen:
        assert torch.equal(tokens[batch.clean], result[batch.clean])
        marked = [slot.role is Role.CONDITION for slot in run.job.slot_layout.slots]
        assert torch.equal(batch.condition, run.job.slot_layout.expand(marked))


# Untouched layers


def test_added_layers_leave_the_others_untouched(pipeline, stack):
    faded = replace(stack, layers=(*stack.layers[:-1], replace(stack.layers[-1], opacity=0.4, blend_mode="screen")))
    low, top = Region("fog", Box(-5, 3, 20, 18), "fog"), Region("stamp", Box(50, 2, 30, 12), "a stamp")
    (result,) = pipeline.add_layers(faded, {1: low, 4: top})
    assert [layer.name for layer in result.layers] == ["Sky", "Sonne ☀", "fog", "cat", "label", "stamp"]
    kept = [layer for place, layer in enumerate(result.layers) if place not in (2, 5)]
    assert all(same_layer(*pair) for pair in zip(kept, faded.layers, strict=True))
    for place, region in ((2, low), (5, top)):
        assert (result.layers[place].box, result.layers[place].caption) == (region.box, region.caption)
        assert result.layers[place].pixels.any()


def test_restyled_layers_leave_the_others_untouched(pipeline, stack, make_image):
    (result,) = pipeline.restyle_layers(stack, {1: make_image(40, 30, 24)})
    assert [layer.name for layer in result.layers] == [layer.name for layer in stack.layers]
    assert all(same_layer(result.layers[place], stack.layers[place]) for place in (0, 1, 3))
    assert result.layers[2].box == stack.layers[2].box
    assert not np.array_equal(result.layers[2].pixels, stack.layers[2].pixels)


def test_a_restyled_layer_keeps_its_settings(pipeline, stack, make_image):
    faint = replace(stack.layers[2], opacity=0.5, blend_mode="multiply", visible=False)
    changed = replace(stack, layers=(*stack.layers[:2], faint, *stack.layers[3:]))
    (result,) = pipeline.restyle_layers(changed, {1: make_image(40, 30, 24)})
    made = result.layers[2]
    assert (made.opacity, made.blend_mode, made.visible) == (0.5, "multiply", False)


def test_restyling_depends_on_the_asset(pipeline, stack, make_image):
    first, second = (pipeline.restyle_layers(stack, {1: make_image(seed, 30, 24)})[0] for seed in (40, 41))
    assert not np.array_equal(first.layers[2].pixels, second.layers[2].pixels)


def test_adding_does_not_see_what_the_target_showed(pipeline, requests, stack, make_image):
    """The target's own pixels are left out of the composite and of its slot."""
    request = requests[Task.ADD_LAYERS]
    other = list(stack.layers)
    other[2] = replace(other[2], pixels=make_image(50, 30, 24))
    (first,), (second,) = (
        pipeline.run(request),
        pipeline.run(replace(request, stack=replace(stack, layers=tuple(other)))),
    )
    assert same_pixels(first, second)


# Names, boxes, order


@pytest.mark.parametrize("task", [Task.TEXT_TO_LAYERS, Task.IMAGE_TO_LAYERS])
def test_names_order_and_boxes_of_the_layout(pipeline, requests, layout, task):
    (result,) = pipeline.run(requests[task], SamplingOptions(seeds=(9,), box_slack=0.0))
    regions = [layout.background_region, *layout.regions]
    assert result.frame == layout.frame
    assert [(x.name, x.caption, x.box) for x in result.layers] == [(r.name, r.caption, r.box) for r in regions]
    assert result.layers[1].box == Box(-10, -6, 30, 20)  # overflow is kept
    assert result.metadata == {"task": str(task), "prompt": requests[task].prompt, "seed": 9}
    assert all(layer.pixels.dtype == np.uint8 and layer.pixels[..., 3].any() for layer in result.layers)


def test_fractional_boxes_grow_to_whole_pixels(pipeline):
    layout = Layout(Size(32, 32), (Region("a", Box(-3.5, 2.25, 10.25, 8.0)),))
    (result,) = pipeline.text_to_layers(layout)
    assert result.layers[1].box == Box(-4, 2, 11, 9)


def test_a_layer_is_the_part_of_its_decoded_slot_under_its_box(pipeline, requests, layout):
    request = requests[Task.TEXT_TO_LAYERS]
    (result,) = pipeline.run(request)
    whole = replace(layout, regions=(replace(layout.regions[0], box=Box(-16, -16, 48, 32)), *layout.regions[1:]))
    (grid,) = pipeline.run(replace(request, layout=whole))  # the same tokens, not cropped
    assert np.array_equal(result.layers[1].pixels, grid.layers[1].pixels[10:30, 6:36])


# Reproducibility


@pytest.mark.parametrize("task", Task)
def test_same_seed_same_bytes(pipeline, requests, task):
    first, second, other = (pipeline.run(requests[task], SamplingOptions(seeds=(seed,)))[0] for seed in (5, 5, 6))
    assert same_pixels(first, second)
    assert not same_pixels(first, other)


@pytest.mark.parametrize("sampling", [Sampling(steps=2, cfg=2.0), STUDENT], ids=["teacher", "student"])
@torch.inference_mode()
def test_several_seeds_in_one_call_equal_each_alone(checkpoint, requests, sampling):
    """Up to the order of floating-point sums, which the size of a matrix product may change: latents of order 1 within
    1e-4, pixels within one level of 255."""
    pipeline, request, seeds = pipeline_of(checkpoint, sampling=sampling), requests[Task.RESTYLE_LAYERS], (3, 11, 3)
    together = pipeline.sample(pipeline.prepare(request, SamplingOptions(seeds=seeds)))
    stacks = pipeline.run(request, SamplingOptions(seeds=seeds))
    assert [stack.metadata["seed"] for stack in stacks] == list(seeds)
    for tokens, stack, seed in zip(together, stacks, seeds, strict=True):
        alone = SamplingOptions(seeds=(seed,))
        assert (tokens - pipeline.sample(pipeline.prepare(request, alone))[0]).abs().max() < 1e-4
        (expected,) = pipeline.run(request, alone)
        for layer, other in zip(stack.layers, expected.layers, strict=True):
            assert np.abs(layer.pixels.astype(int) - other.pixels).max() <= 1


def test_the_global_generator_does_not_matter(pipeline, requests):
    torch.manual_seed(0)
    (first,) = pipeline.run(requests[Task.TEXT_TO_LAYERS])
    state = torch.get_rng_state()
    torch.manual_seed(1)
    (second,) = pipeline.run(requests[Task.TEXT_TO_LAYERS])
    assert same_pixels(first, second)
    torch.manual_seed(0)
    assert torch.equal(state, torch.get_rng_state())  # and it is left where it was


# Options


def test_guidance_needs_the_negative_prompt_only_above_one(checkpoint, requests):
    request = requests[Task.TEXT_TO_LAYERS]
    pipeline = pipeline_of(checkpoint)

    def made(**options):
        return pipeline.run(request, SamplingOptions(**options))[0]

    assert same_pixels(made(cfg=1.0, negative="sale"), made(cfg=1.0, negative="sea"))
    assert not same_pixels(made(cfg=3.0, negative="sale"), made(cfg=3.0, negative="sea"))
    assert same_pixels(made(), made(cfg=2.0))  # the checkpoint's own scale


def test_schedule_settings(requests):
    sample = job_for(requests[Task.TEXT_TO_LAYERS]).slot_layout
    tokens = 6 * 7

    def sigmas(sampling, **options):
        return noise_levels(sample, sampling, SamplingOptions(**options))

    assert torch.equal(sigmas(Sampling(steps=4)), teacher_sigmas(4, tokens))
    assert torch.equal(sigmas(Sampling(steps=4), steps=7), teacher_sigmas(7, tokens))
    assert torch.equal(sigmas(Sampling(steps=4, shift=2.0)), shifted_sigmas(4, 2.0))
    assert torch.equal(sigmas(Sampling(steps=4, shift=2.0), steps=2, shift=3.0), shifted_sigmas(2, 3.0))
    assert sigmas(STUDENT).tolist() == pytest.approx([1.0, 0.7, 0.3, 0.0])
    assert torch.equal(sigmas(STUDENT, shift=3.0), shifted_sigmas(3, 3.0))


def test_image_to_layers_has_a_schedule_of_its_own(checkpoint, requests):
    info = replace(checkpoint.info, sampling=Sampling(steps=3, cfg=1.0), image_sampling=Sampling(steps=2, cfg=1.0))
    assert type(info).from_json(info.to_json()) == info
    assert [info.sampling_for(task).steps for task in Task] == [3, 2, 3, 3]


def test_progress_and_its_interruption(pipeline, requests):
    request, seen = requests[Task.ADD_LAYERS], []
    noisy = 2 * sum(slot.box.count for slot in job_for(request).slot_layout.slots if not slot.clean)

    def progress(step, steps, estimate):
        seen.append((step, steps, tuple(estimate.shape)))
        if len(seen) == 5:
            raise KeyboardInterrupt

    pipeline.run(request, SamplingOptions(seeds=(0, 1), steps=3, progress=progress))
    assert seen == [(step, 3, (noisy, 64)) for step in (1, 2, 3)]
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(request, SamplingOptions(seeds=(0, 1), steps=4, progress=progress))
    assert len(seen) == 5


# Backgrounds and places


def test_with_background_keeps_one_that_covers_the_frame(stack):
    completed = with_background(stack)
    assert all(same_layer(*pair) for pair in zip(completed.layers, stack.layers, strict=True))


@pytest.mark.parametrize("first", [Box(1, 0, 63, 48), Box(0, 0, 64, 47), Box(10, 10, 5, 5)])
def test_with_background_puts_a_transparent_one_below(stack, first):
    layer = Layer(np.full((int(first.height), int(first.width), 4), 255, np.uint8), int(first.x), int(first.y), "low")
    completed = with_background(replace(stack, layers=(layer,)))
    assert [x.name for x in completed.layers] == ["Background", "low"]
    assert completed.layers[0].box == Box(0, 0, 64, 48)
    assert not completed.layers[0].pixels.any()


def test_insert_regions_counts_final_places(stack):
    new = [Region(name, Box(0, 0, 5, 5)) for name in "abc"]
    known, layout = insert_regions(stack, {3: new[1], 0: new[0], 5: new[2]})
    names = ["a", "Sonne ☀", "cat", "b", "label", "c"]
    assert [region.name for region in layout.regions] == names
    assert [layer.name for layer in known.layers] == ["Sky", *names]


# Errors


def message_of(call) -> str:
    with pytest.raises(MRTError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("channels", [3, 4])
def test_wrong_image_size(pipeline, layout, channels):
    image = np.zeros((48, 65, channels), np.uint8)
    message = message_of(lambda: pipeline.image_to_layers(image, layout))
    assert message == "the image is 65 x 48 px, but the layout's frame is 64 x 48 px; give both the same size"


def test_rgb_image_is_opaque(pipeline, layout, make_image):
    image = make_image(60, 48, 64)
    image[..., 3] = 255
    (opaque,), (rgb,) = pipeline.image_to_layers(image, layout), pipeline.image_to_layers(image[..., :3], layout)
    assert same_pixels(opaque, rgb)


def test_wrong_asset_size(pipeline, stack, make_image):
    message = message_of(lambda: pipeline.restyle_layers(stack, {1: make_image(0, 24, 30)}))
    assert message.startswith("the asset for layer 1 is 30 x 24 px, but that layer's box is 24 x 30 px")


@pytest.mark.parametrize("places", [{}, {4: None}, {-1: None}, {0: None, 5: None}])
def test_unknown_place_of_a_new_layer(pipeline, stack, places):
    additions = {place: Region("new", Box(0, 0, 9, 9)) for place in places}
    message = message_of(lambda: pipeline.add_layers(stack, additions))
    assert message.startswith(
        f"the new layers stand at {sorted(places)}, but with them there are {3 + len(places)} layers"
    )


@pytest.mark.parametrize("places", [(), (3,), (-1,)])
def test_unknown_layer_to_restyle(pipeline, stack, make_image, places):
    message = message_of(lambda: pipeline.restyle_layers(stack, {place: make_image(0, 9, 9) for place in places}))
    assert message.startswith(
        f"the target layers are {list(places)}, but they must be one or more of the layout's 3 layers"
    )


def test_a_task_that_the_checkpoint_does_not_know(checkpoint, requests):
    pipeline = pipeline_of(checkpoint, tasks=(Task.TEXT_TO_LAYERS, Task.ADD_LAYERS))
    message = message_of(lambda: pipeline.run(requests[Task.IMAGE_TO_LAYERS]))
    assert "trained for text_to_layers, add_layers and not for image_to_layers" in message


@pytest.mark.parametrize("options", [{"steps": 0}, {"steps": -1}, {"shift": 0.0}, {"shift": -2.0}])
def test_impossible_steps_and_shifts(checkpoint, requests, options):
    for sampling in (Sampling(steps=2), STUDENT):
        pipeline = pipeline_of(checkpoint, sampling=sampling)
        message_of(lambda pipeline=pipeline: pipeline.run(requests[Task.TEXT_TO_LAYERS], SamplingOptions(**options)))


# A run is worked out once


@pytest.mark.parametrize("task", Task)
def test_slots_are_planned_and_weights_measured_once_a_run(checkpoint, requests, task, monkeypatch):
    counts = Counter()

    def counted(module, name):
        function = getattr(module, name)

        def call(*args, **kwargs):
            counts[name] += 1
            return function(*args, **kwargs)

        monkeypatch.setattr(module, name, call)

    counted(job_module, "slot_layout")
    counted(pipeline_module, "measure_weights")
    counted(pipeline_module, "plan_memory")
    pipeline_of(checkpoint).run(requests[task], SamplingOptions(seeds=(0, 1), steps=2))
    assert counts == {"slot_layout": 1, "measure_weights": 1, "plan_memory": 1}
