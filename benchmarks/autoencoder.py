"""Decode time of the 2D autoencoder against diffusers' 3D one at full width, same weights, in one run.

python benchmarks/autoencoder.py [--device cuda] [--side 256]
"""

import argparse
import statistics
import time

import torch
from diffusers import AutoencoderKLQwenImage

from mrt_core.checkpoints.autoencoder_keys import canonical_autoencoder_state
from mrt_core.models.autoencoder import Autoencoder
from mrt_core.models.configs import AutoencoderConfig

REPEATS = 3


def seconds(run) -> float:
    """Median wall time of `run` over REPEATS calls, after one to warm up."""
    times = []
    for _ in range(REPEATS + 1):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--side", type=int, default=256, help="px")
    options = parser.parse_args()
    torch.manual_seed(0)
    reference = AutoencoderKLQwenImage().to(options.device).eval()
    ours = Autoencoder(AutoencoderConfig(in_channels=3, out_channels=3), device=options.device)
    ours.load_state_dict(canonical_autoencoder_state(reference.state_dict()))
    mean, std = (
        torch.tensor(v, device=options.device)[:, None, None] for v in (ours.config.latent_mean, ours.config.latent_std)
    )
    latent = torch.randn(1, 16, options.side // 8, options.side // 8, device=options.device)
    image = torch.rand(1, 3, options.side, options.side, device=options.device) * 2 - 1
    difference = (ours.decode((latent - mean) / std) - reference.decode(latent[:, :, None]).sample[:, :, 0]).abs().max()
    print(f"{options.side} px, {options.device}, fp32; largest difference of the decoded images {difference:.1e}\n")
    print("| | 2D (s) | 3D, diffusers (s) | ratio |\n|---|---|---|---|")
    for name, flat, deep in (
        ("decode", lambda: ours.reconstruct(latent), lambda: reference.decode(latent[:, :, None])),
        ("encode", lambda: ours.posterior(image), lambda: reference.encode(image[:, :, None])),
    ):
        a, b = seconds(flat), seconds(deep)
        print(f"| {name} | {a:.2f} | {b:.2f} | {b / a:.2f}x |")


if __name__ == "__main__":
    main()
