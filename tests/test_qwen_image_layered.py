"""Qwen-Image-Layered end to end against diffusers' pipeline: same weights, text, seed and image, a tiny random model."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from given_text import GivenText
from PIL import Image

from mrt_core.checkpoints.autoencoder_keys import autoencoder_config, canonical_autoencoder_state
from mrt_core.checkpoints.checkpoint import Checkpoint
from mrt_core.checkpoints.info import CheckpointInfo
from mrt_core.errors import MRTError
from mrt_core.geometry import Box, Size
from mrt_core.layouts.layout import MAX_LAYERS, Layout, Region, full_frame_layout
from mrt_core.models.autoencoder import Autoencoder
from mrt_core.models.configs import TransformerConfig
from mrt_core.models.sequence import Role
from mrt_core.models.transformer import MaskedRegionTransformer
from mrt_core.pipeline import Pipeline, SamplingOptions
from mrt_core.stacks.layers import composite
from mrt_core.tasks.job import job_for
from mrt_core.tasks.region_codec import RegionCodec
from mrt_core.tasks.request import image_to_layers_request
from mrt_core.tasks.scaling import bucket_frame
from mrt_core.tasks.slots import Arrangement, Task, image_to_layers

diffusers = pytest.importorskip("diffusers", reason="parity tests need diffusers: pip install -e .[dev]")
from diffusers.pipelines.qwenimage import pipeline_qwenimage_layered as public  # noqa: E402

AREA = 80 * 80  # px; the public pipeline knows 640 and 1024 alone, so its sizes are replaced below
STEPS = 10
TEXT_WIDTH = 40
SIZES = {"num_layers": 2, "num_heads": 2, "head_dim": 32, "text_dim": TEXT_WIDTH, "rope_axes": (8, 12, 12)}


@pytest.fixture(scope="module")
def reference():
    """diffusers' pipeline with random weights in every tensor."""
    torch.manual_seed(0)
    transformer = diffusers.QwenImageTransformer2DModel(
        patch_size=2, in_channels=64, out_channels=16, num_layers=SIZES["num_layers"],
        attention_head_dim=SIZES["head_dim"], num_attention_heads=SIZES["num_heads"], joint_attention_dim=TEXT_WIDTH,
        axes_dims_rope=SIZES["rope_axes"], use_additional_t_cond=True, use_layer3d_rope=True,
    )  # fmt: skip
    autoencoder = diffusers.AutoencoderKLQwenImage(base_dim=8, input_channels=4)
    for model in (transformer, autoencoder):
        for parameter in model.parameters():
            parameter.data += 0.03 * torch.randn_like(parameter)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, time_shift_type="linear", base_shift=0.5, max_shift=0.9, shift_terminal=None
    )
    pipeline = public.QwenImageLayeredPipeline(
        scheduler=scheduler, vae=autoencoder.eval(), text_encoder=None, tokenizer=None, processor=None,
        transformer=transformer.eval(),
    )  # fmt: skip
    pipeline.text_encoder = SimpleNamespace(dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def text():
    torch.manual_seed(1)
    return {"a red sign on a wall": torch.randn(9, TEXT_WIDTH), " ": torch.randn(6, TEXT_WIDTH)}


@pytest.fixture(scope="module")
def ours(reference, text):
    config = TransformerConfig(**SIZES, additional_t_cond=True, condition_embedding=False, clean_timestep="shared")
    transformer = MaskedRegionTransformer(config)
    transformer.load_state_dict(reference.transformer.state_dict(), strict=True)
    state = reference.vae.state_dict()
    autoencoder = Autoencoder(autoencoder_config(state))
    autoencoder.load_state_dict(canonical_autoencoder_state(state), strict=True)
    info = CheckpointInfo(
        config, autoencoder.config, tasks=(Task.IMAGE_TO_LAYERS,), frame_area=AREA, region_mode="full",
        arrangement=Arrangement.QWEN_IMAGE_LAYERED,
    )  # fmt: skip
    checkpoint = Checkpoint(transformer.eval(), autoencoder.eval(), None, info)
    return Pipeline(checkpoint, GivenText(text), RegionCodec(autoencoder, info.region_mode))


def picture(width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    channels = [127 + 120 * np.sin(x / 9), 127 + 120 * np.cos(y / 7), (x * 3 + y * 2) % 256, np.full(x.shape, 255)]
    return np.stack(channels, -1).astype(np.uint8)


@torch.no_grad()
def run_public(reference, text, image, layers, cfg, normalise):
    """The public pipeline's last latents ((N + 1) * tokens, 64) and its pictures (N, height, width, 4) in 0..1."""
    prompts, latents = list(text), []

    def keep(pipeline, step, timestep, tensors):  # it returns no latents: output_type="latent" ends in an error there
        latents.append(tensors["latents"])
        return {}

    positive, negative = text[prompts[0]][None], text[prompts[1]][None]
    masks = [torch.ones(states.shape[:2], dtype=torch.long) for states in (positive, negative)]
    guided = {"negative_prompt_embeds": negative, "negative_prompt_embeds_mask": masks[1]} if cfg > 1 else {}
    pictures = reference(
        image=Image.fromarray(image), prompt=prompts[0], prompt_embeds=positive, prompt_embeds_mask=masks[0],
        true_cfg_scale=cfg, layers=layers, num_inference_steps=STEPS, cfg_normalize=normalise, output_type="np",
        generator=torch.Generator().manual_seed(7), callback_on_step_end=keep, **guided,
    ).images[0]  # fmt: skip
    return latents[-1][0], pictures


@pytest.fixture(autouse=True)
def small_buckets(monkeypatch):
    """Let the public pipeline work at AREA, by its own rule for sizes."""
    rule = public.calculate_dimensions
    monkeypatch.setattr(public, "calculate_dimensions", lambda area, ratio: rule(AREA, ratio))


@pytest.mark.parametrize("layers", [1, 3, 8])
@pytest.mark.parametrize(("cfg", "normalise"), [(1.0, False), (4.0, False), (4.0, True)])
def test_equals_the_public_pipeline(reference, ours, text, layers, cfg, normalise):
    image = picture(96, 64)
    prompt, _ = text
    layout = full_frame_layout(Size(96, 64), layers)
    options = SamplingOptions(seeds=(7,), steps=STEPS, cfg=cfg, renormalise=normalise, match_image=False)
    request = image_to_layers_request(image, layout, prompt)

    expected, pictures = run_public(reference, text, image, layers, cfg, normalise)
    with torch.inference_mode():
        (tokens,) = ours.sample(ours.prepare(request, options))
    assert expected.abs().max() > 1  # random weights do something
    assert (tokens[: len(expected)] - expected).abs().max() < 1e-4

    (stack,) = ours.run(request, options)
    assert [layer.name for layer in stack.layers] == [f"Layer {number + 1}" for number in range(layers)]
    for layer, pixels in zip(stack.layers, pictures, strict=True):
        expected = np.rint(pixels * 255)
        shown = layer.pixels[..., 3:] > 0  # colours under full transparency are 0 here
        difference = np.where(shown, np.abs(layer.pixels - expected), np.abs(layer.pixels[..., 3:] - expected[..., 3:]))
        assert difference.max() <= 1


def test_another_size_is_brought_to_a_bucket_and_back(reference, ours, text):
    image = picture(300, 190)
    prompt, _ = text
    layout = full_frame_layout(Size(300, 190), 2)
    options = SamplingOptions(seeds=(7,), steps=STEPS, cfg=1.0, match_image=False)
    request = image_to_layers_request(image, layout, prompt)
    expected, _ = run_public(reference, text, image, 2, 1.0, False)
    run = ours.prepare(request, options)
    assert run.job.sampled.layout.frame == (96, 64)
    with torch.inference_mode():
        (tokens,) = ours.sample(run)
    assert (tokens[: len(expected)] - expected).abs().max() < 1e-4
    (stack,) = ours.run(request, options)
    assert [layer.box for layer in stack.layers] == [Box(0, 0, 300, 190)] * 2
    (matched,) = ours.run(request, SamplingOptions(seeds=(7,), steps=STEPS, cfg=1.0))
    assert stack.frame == matched.frame == (300, 190) and not np.array_equal(composite(stack), composite(matched))


@pytest.mark.parametrize(
    ("frame", "area", "bucket"),
    [
        ((512, 512), 640**2, (640, 640)),
        ((1920, 1080), 640**2, (864, 480)),
        ((800, 600), 640**2, (736, 544)),
        ((1920, 1080), 1024**2, (1376, 768)),
        ((4000, 3000), 1024**2, (1184, 896)),
        ((100_000, 10), 640**2, (64000, 32)),
    ],
)
def test_buckets(frame, area, bucket):
    """The sizes that it works at (architecture: Qwen-Image-Layered)."""
    assert bucket_frame(Size(*frame), area) == bucket


def test_the_image_is_a_reference_beside_what_is_made():
    sample = image_to_layers(full_frame_layout(Size(64, 32), 3), Arrangement.QWEN_IMAGE_LAYERED)
    assert [(slot.role, slot.layer_index, slot.clean) for slot in sample.slots] == [
        (Role.COMPOSITE, 0, False),
        (Role.BACKGROUND, 1, False),
        (Role.LAYER, 2, False),
        (Role.LAYER, 3, False),
        (Role.CONDITION, -1, True),
    ]
    assert all(slot.box.count == 8 for slot in sample.slots)


def test_boxes_drop_the_tokens_outside(ours):
    """Training-free region cropping: fewer tokens, layers where their boxes are."""
    frame = Size(96, 64)
    layout = Layout(frame, (Region("Sign", Box(16, 16, 40, 30), ""),))
    boxes = job_for(image_to_layers_request(picture(96, 64), layout), ours.info).slot_layout
    whole = job_for(image_to_layers_request(picture(96, 64), full_frame_layout(frame, 2)), ours.info).slot_layout
    assert boxes.token_count == whole.token_count - 24 + 6
    (stack,) = ours.run(
        image_to_layers_request(picture(96, 64), layout, " "), SamplingOptions(steps=2, cfg=1.0, match_image=False)
    )
    assert [layer.box for layer in stack.layers] == [Box(0, 0, 96, 64), Box(16, 16, 40, 30)]


@pytest.mark.parametrize("layers", [0, MAX_LAYERS + 1])
def test_a_number_of_layers_out_of_range_is_refused(layers):
    with pytest.raises(MRTError) as caught:
        full_frame_layout(Size(64, 64), layers)
    assert str(caught.value) == f"{layers} layers were asked for, but it can be 1 to 50; give a number in that range"


def test_the_schedule_counts_one_image():
    """mu = sqrt(tokens of one image / 256): 2.5 at 640 x 640 px (architecture: sampling)."""
    assert math.sqrt(image_to_layers(full_frame_layout(Size(640, 640), 4)).canvas_rows ** 2 / 256) == 2.5
