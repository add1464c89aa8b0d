"""Train the small RGBA autoencoder on crops of synthetic designs: `mrt train autoencoder`."""

import json
import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..designs.generator import DesignSettings, generate_design
from ..geometry import LATENT_PX, Box
from ..models.autoencoder import Autoencoder, ResidualBlock
from ..models.configs import LATENT_CHANNELS, AutoencoderConfig
from ..stacks.layers import LayerStack, composite
from ..tasks.region_codec import over_grey
from ..weights.safetensors_file import save_atomically
from .ahead import map_ahead
from .muon import muon_for
from .state import TrainingState, averaged_weights, warmup_stable_decay

log = logging.getLogger(__name__)

FRAME_SIDES = (96, 128, 160, 224)  # px; the square roots of the frame areas that crops come from
CROP_SIDES = (32, 48, 64, 80, 96, 128)  # px
FIRST_LOG_VARIANCE = -6.0  # the posterior starts narrow: with a wide one the decoder learns to ignore it
IMAGE_SIDE = ("encoder.conv_in.weight", "decoder.conv_out.weight", "quant_conv.weight")  # left to Adam
CROP_AREA = 64 * 64  # px; a batch of bigger crops holds fewer of them


@dataclass(frozen=True)
class AutoencoderTraining:
    """Settings of a run. `batch` counts crops of 64 x 64 px; `kl_weight` weighs the mean KL of one latent value.

    With 3 `image_channels` the encoder sees layers over grey, and the decoder has to find their alpha (paper section 5.9).
    """

    steps: int = 5000
    batch: int = 6
    matrix_learning_rate: float = 0.02
    learning_rate: float = 1.5e-3
    kl_weight: float = 1e-5
    decay_share: float = 0.5
    save_every: int = 500
    seed: int = 0
    image_channels: int = 4


def _random_crop(rng: np.random.Generator, stack: LayerStack, height: int, width: int) -> np.ndarray:
    """A crop (height, width, 4) of one layer alone or of the flattened stack, near what it shows."""
    index = int(rng.integers(-2, len(stack.layers)))  # -2, -1: the flattened stack
    shown = stack if index < 0 else LayerStack(stack.frame, (stack.layers[index],))
    box = Box(0, 0, *stack.frame) if index < 0 else stack.layers[index].box
    x = rng.integers(min(box.x, box.right - width) - 8, max(box.x, box.right - width) + 9)
    y = rng.integers(min(box.y, box.bottom - height) - 8, max(box.y, box.bottom - height) + 9)
    return composite(shown, Box(int(x), int(y), width, height))


class CropBatch(NamedTuple):
    """One batch of crops before it is drawn; what it shows follows from the seed and its number alone."""

    size: int  # in crops of 64 x 64 px
    seed: int
    number: int
    held_out: bool

    def draw(self) -> np.ndarray:
        """Straight RGBA crops (B, h, w, 4) uint8."""
        rng = np.random.default_rng((2, self.seed, self.number))
        height, width = (int(side) for side in rng.choice(CROP_SIDES, 2))
        wanted = max(2, self.size * CROP_AREA // (height * width))
        images = []
        while len(images) < wanted:
            settings = DesignSettings(held_out=self.held_out, frame_area=int(rng.choice(FRAME_SIDES)) ** 2)
            design = generate_design(int(rng.integers(2**62)), settings)
            images += [_random_crop(rng, design.stack, height, width) for _ in range(min(4, wanted - len(images)))]
        return np.stack(images)


def crops(
    settings: AutoencoderTraining, seed: int, first: int = 0, held_out: bool = False, workers: int = 0
) -> Iterator[Tensor]:
    """Endless batches (B, 4, h, w) of straight RGBA crops in -1..1 from number `first` on, drawn ahead by `workers` processes."""
    batches = (CropBatch(settings.batch, seed, number, held_out) for number in count(first))
    yield from map(to_network, map_ahead(CropBatch.draw, batches, workers))


def to_network(pixels: np.ndarray) -> Tensor:
    """Straight RGBA uint8 (B, H, W, 4) to the autoencoder's input (B, 4, H, W) in -1..1."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def seen_by(model: Autoencoder, image: Tensor) -> Tensor:
    """What the encoder is given of straight RGBA (B, 4, H, W) in -1..1: all of it, or RGB (B, 3, H, W) over grey."""
    return image if model.config.in_channels == 4 else 2 * over_grey((image + 1) / 2) - 1


def premultiplied(image: Tensor) -> Tensor:
    """The network's straight RGBA (B, 4, H, W) in -1..1 to premultiplied RGBA in 0..1."""
    unit = (image + 1) / 2
    return torch.cat([unit[:, :3] * unit[:, 3:], unit[:, 3:]], 1)


def reconstruction_loss(output: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over black, over white and of alpha, at full size and averaged over 8 x 8 px.

    Colour under full transparency is free. Squared, because with an absolute error the network stays for long at the
    median, a constant image; the averages weigh the colours of areas, which it otherwise learns last.
    """
    a, b = premultiplied(output.float()), premultiplied(target)
    difference = torch.cat([a - b, (a[:, :3] - a[:, 3:]) - (b[:, :3] - b[:, 3:])], 1)
    return difference.square().mean() + 3 * F.avg_pool2d(difference, LATENT_PX).square().mean()


@torch.no_grad()
def initialise(model: Autoencoder) -> None:
    """Start near an image pyramid: residual branches closed, every other convolution an average or a copy plus noise.

    Channel RMS norms keep a constant background signal, so that a plain random start passes little of the image on.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear").mul_(0.3)
            nn.init.zeros_(module.bias)
            if module.stride == (2, 2):
                for channel in range(module.in_channels):
                    module.weight[channel, channel, :2, :2] += 0.25  # the average of 2 x 2 pixels
            else:
                module.weight += nn.init.dirac_(torch.empty_like(module.weight))
    for module in model.modules():
        if isinstance(module, ResidualBlock):
            nn.init.kaiming_normal_(module.conv1.weight, nonlinearity="linear")
            nn.init.zeros_(module.conv2.weight)
    for convolution in (model.encoder.conv_in, model.encoder.conv_out, model.decoder.conv_out):
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="linear")
    nn.init.constant_(model.quant_conv.bias[LATENT_CHANNELS:], FIRST_LOG_VARIANCE)


def reconstruction_psnr(output: Tensor, target: Tensor) -> float:
    """Mean over the batch of the PSNR in dB of premultiplied RGBA."""
    error = (premultiplied(output.float().clamp(-1, 1)) - premultiplied(target)).square().mean((1, 2, 3))
    return float((-10 * error.clamp_min(1e-10).log10()).mean())


@torch.no_grad()
def latent_statistics(model: Autoencoder, batches: Iterator[Tensor], number: int = 60) -> tuple[tuple[float, ...], ...]:
    """Mean and standard deviation per latent channel over `number` batches."""
    means = (model.posterior(seen_by(model, next(batches)))[0] for _ in range(number))
    values = [mean.transpose(0, 1).reshape(LATENT_CHANNELS, -1) for mean in means]
    joined = torch.cat(values, 1)
    return tuple(joined.mean(1).tolist()), tuple(joined.std(1).tolist())


@torch.no_grad()
def finish_autoencoder(folder: Path) -> None:
    """Write the averaged weights with the latent statistics of training crops as `folder`/autoencoder.safetensors."""
    weights = averaged_weights(folder / "state.safetensors")
    width, channels = len(weights["decoder.norm_out.gamma"]), weights["encoder.conv_in.weight"].shape[1]
    model = Autoencoder(AutoencoderConfig(width, channels))
    model.load_state_dict(weights)
    mean, std = latent_statistics(model, crops(AutoencoderTraining(), seed=1_000_000))
    model.config = replace(model.config, latent_mean=mean, latent_std=std)
    save_autoencoder(folder, model)


def save_autoencoder(folder: Path, model: Autoencoder) -> None:
    """Write `folder`/autoencoder.safetensors: weights and sizes with latent statistics."""
    save_atomically(
        model.state_dict(), folder / "autoencoder.safetensors", {"config": json.dumps(asdict(model.config))}
    )


def train_autoencoder(
    folder: Path, settings: AutoencoderTraining, base_width: int = 16, device: str = "cpu", workers: int = 0
) -> None:
    """Train, resuming from `folder`/state.safetensors where it exists; the state is saved as training goes on.

    `workers` processes draw the crops ahead; without, this one draws them.
    """
    torch.manual_seed(settings.seed)
    model = Autoencoder(AutoencoderConfig(base_width, settings.image_channels))
    initialise(model)
    model.to(device, memory_format=torch.channels_last)
    inner = {
        name for name, parameter in model.named_parameters() if parameter.ndim == 4 and not name.endswith(IMAGE_SIDE)
    }
    optimizer = muon_for(model, inner, settings.matrix_learning_rate, settings.learning_rate)
    state = TrainingState(model, optimizer, ema_decay=0.998)
    path = folder / "state.safetensors"
    if path.exists():
        state.resume(path)
        log.info("resumed at step %d", state.step)
    batches = crops(settings, settings.seed, state.step, workers=workers)
    started, first = time.monotonic(), state.step
    while state.step < settings.steps:
        image = next(batches).to(device, memory_format=torch.channels_last)
        with torch.autocast(image.device.type, torch.bfloat16):
            mean, log_variance = model.posterior(seen_by(model, image))
            noise = torch.randn_like(mean) * (0.5 * log_variance.clamp(-20, 10)).exp()
            output = model.reconstruct(mean + noise)
        log_variance = log_variance.float().clamp(-20, 10)
        divergence = 0.5 * (mean.float().square() + log_variance.exp() - 1 - log_variance).mean()
        loss = reconstruction_loss(output, image) + settings.kl_weight * divergence
        loss.backward()
        factor = warmup_stable_decay(state.step, settings.steps, 100, settings.decay_share)
        norm = state.apply_gradients(factor)
        if state.step % 50 == 0:
            rate = (state.step - first) / (time.monotonic() - started)
            psnr = reconstruction_psnr(output.detach(), image)
            log.info(
                "step %d loss %.5f psnr %.2f kl %.3f norm %.2f steps/s %.2f",
                state.step,
                loss,
                psnr,
                divergence,
                norm,
                rate,
            )
        if state.step % settings.save_every == 0 or state.step == settings.steps:
            state.save(path, {"base_width": base_width})
