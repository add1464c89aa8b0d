"""What a training run remembers: weights, their moving average, the optimiser's moments and the step, as safetensors."""

import json
from collections import deque
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ..errors import MRTError
from ..files import DTYPE_NAMES, TensorEntry, save_streamed
from .muon import Muon
from .sharding import gather, is_first_process, place_like

MOMENTS = ("momentum", "first", "second")  # what the optimiser keeps per parameter, of the parameter's shape
COUNT = "count"  # the steps that AdamW has taken, a single number


class MovingAverage:
    """An exponential moving average of a module's parameters, with a warm-up so that early steps are forgotten."""

    def __init__(self, module: nn.Module, decay: float):
        self.decay = decay
        self.average = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        parameters = [parameter.detach() for parameter in module.parameters()]
        torch._foreach_lerp_(list(self.average.values()), parameters, 1 - decay)


def warmup_stable_decay(step: int, total: int, warmup: int, decay_share: float) -> float:
    """Learning-rate factor: a linear rise over `warmup` steps, a plateau, a linear fall over the last `decay_share`."""
    decay_steps = max(1, round(total * decay_share))
    return min(1.0, (step + 1) / warmup, max(0.0, (total - step) / decay_steps))


class TrainingState:
    """A module with its optimiser and moving average; saves to and resumes from one safetensors file."""

    def __init__(self, module: nn.Module, optimizer: Muon, ema_decay: float):
        self.module, self.optimizer = module, optimizer
        self.ema = MovingAverage(module, ema_decay)
        self.step = 0

    def apply_gradients(self, factor: float, clip: float = 1.0) -> float:
        """One optimiser step at `factor` times the peak learning rates; returns the gradient norm before clipping."""
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), clip)
        self.optimizer.scale_learning_rates(factor)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.ema.update(self.module, self.step)
        return float(gather(norm))

    @torch.no_grad()
    def save(self, path: Path, metadata: dict) -> None:
        """Write one file with everything; what is sharded is gathered by all processes, one by one, and the first writes."""
        tensors = {f"model.{name}": parameter for name, parameter in self.module.named_parameters()}
        tensors |= {f"ema.{name}": average for name, average in self.ema.average.items()}
        for name, parameter in self.module.named_parameters():
            for moment, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{moment}.{name}"] = value
        entries = {
            name: TensorEntry(DTYPE_NAMES[tensor.dtype], tuple(tensor.shape)) for name, tensor in tensors.items()
        }
        whole = ((name, gather(tensor).cpu()) for name, tensor in tensors.items())
        if is_first_process():
            save_streamed(path, entries, whole, {"training": json.dumps({"step": self.step, **metadata})})
        else:
            deque(whole, maxlen=0)  # every process takes part in every gathering

    @torch.no_grad()
    def resume(self, path: Path) -> dict:
        """Continue from a saved state; returns the metadata it was saved with."""
        with safe_open(path, "pt") as file:
            metadata, names = json.loads(file.metadata()["training"]), set(file.keys())
            for name, parameter in self.module.named_parameters():
                parameter.copy_(place_like(file.get_tensor(f"model.{name}"), parameter))
                self.ema.average[name].copy_(place_like(file.get_tensor(f"ema.{name}"), parameter))
                kept = self.optimizer.state[parameter] = {
                    moment: place_like(file.get_tensor(f"optimizer.{moment}.{name}"), parameter)
                    for moment in MOMENTS
                    if f"optimizer.{moment}.{name}" in names
                }
                if f"optimizer.{COUNT}.{name}" in names:
                    kept[COUNT] = file.get_tensor(f"optimizer.{COUNT}.{name}")
        self.step = metadata.pop("step")
        return metadata


def averaged_weights(path: Path) -> dict[str, Tensor]:
    """The moving average of a training state."""
    if not path.exists():
        raise MRTError(f"{path} does not exist, but this step needs it; run the training step before it first")
    with safe_open(path, "pt") as file:
        return {name.removeprefix("ema."): file.get_tensor(name) for name in file.keys() if name.startswith("ema.")}  # noqa: SIM118
