"""What a training run remembers: weights, their moving average, the optimiser's moments and the step, as safetensors."""

import json
from collections import deque
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ..errors import MRTError
from ..weights.safetensors_file import DTYPE_NAMES, save_streamed
from ..weights.safetensors_header import TensorEntry
from .muon import Muon
from .sharding import gather, is_first_process, place_like

MOMENTS = ("momentum", "first", "second")  # what the optimiser keeps per parameter, of the parameter's shape
COUNT = "count"  # the steps that Adam has taken, a single number


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


class OptimisedModule:
    """A module with its optimiser."""

    def __init__(self, module: nn.Module, optimizer: Muon):
        self.module, self.optimizer = module, optimizer

    def apply_gradients(self, factor: float, clip: float = 1.0) -> float:
        """One optimiser step at `factor` times the peak learning rates; returns the gradient norm before clipping."""
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), clip)
        self.optimizer.scale_learning_rates(factor)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(gather(norm))

    def tensors(self) -> dict[str, Tensor]:
        """Weights and the optimiser's moments, by their names in a file."""
        tensors = {f"model.{name}": parameter for name, parameter in self.module.named_parameters()}
        for name, parameter in self.module.named_parameters():
            for moment, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{moment}.{name}"] = value
        return tensors

    def restore(self, file: safe_open, prefix: str) -> None:
        """Take over what a file has under `prefix` and the names of `tensors`."""
        names = set(file.keys())
        for name, parameter in self.module.named_parameters():
            parameter.copy_(place_like(file.get_tensor(f"{prefix}model.{name}"), parameter))
            kept = self.optimizer.state[parameter] = {
                moment: place_like(file.get_tensor(f"{prefix}optimizer.{moment}.{name}"), parameter)
                for moment in MOMENTS
                if f"{prefix}optimizer.{moment}.{name}" in names
            }
            if f"{prefix}optimizer.{COUNT}.{name}" in names:
                kept[COUNT] = file.get_tensor(f"{prefix}optimizer.{COUNT}.{name}")


class TrainingState(OptimisedModule):
    """A module with its optimiser, moving average and step; saves to and resumes from one safetensors file.

    Modules that are trained `beside` it lie in the same file, under their names.
    """

    def __init__(self, module: nn.Module, optimizer: Muon, ema_decay: float):
        super().__init__(module, optimizer)
        self.ema = MovingAverage(module, ema_decay)
        self.step = 0

    def apply_gradients(self, factor: float, clip: float = 1.0) -> float:
        norm = super().apply_gradients(factor, clip)
        self.step += 1
        self.ema.update(self.module, self.step)
        return norm

    def tensors(self) -> dict[str, Tensor]:
        return super().tensors() | {f"ema.{name}": average for name, average in self.ema.average.items()}

    def restore(self, file: safe_open, prefix: str) -> None:
        super().restore(file, prefix)
        for name, average in self.ema.average.items():
            average.copy_(place_like(file.get_tensor(f"{prefix}ema.{name}"), average))

    @torch.no_grad()
    def save(self, path: Path, metadata: dict, **beside: OptimisedModule) -> None:
        """Write one file with everything; what is sharded is gathered by all processes, one by one, and the first writes."""
        tensors = self.tensors()
        for prefix, other in beside.items():
            tensors |= {f"{prefix}.{name}": tensor for name, tensor in other.tensors().items()}
        entries = {
            name: TensorEntry(DTYPE_NAMES[tensor.dtype], tuple(tensor.shape)) for name, tensor in tensors.items()
        }
        whole = ((name, gather(tensor).cpu()) for name, tensor in tensors.items())
        if is_first_process():
            save_streamed(path, entries, whole, {"training": json.dumps({"step": self.step, **metadata})})
        else:
            deque(whole, maxlen=0)  # every process takes part in every gathering

    @torch.no_grad()
    def resume(self, path: Path, **beside: OptimisedModule) -> dict:
        """Continue from a saved state; returns the metadata it was saved with."""
        with safe_open(path, "pt") as file:
            metadata = json.loads(file.metadata()["training"])
            self.restore(file, "")
            for prefix, other in beside.items():
                other.restore(file, f"{prefix}.")
        self.step = metadata.pop("step")
        return metadata


def averaged_weights(path: Path) -> dict[str, Tensor]:
    """The moving average of a training state."""
    if not path.exists():
        raise MRTError(f"{path} does not exist, but this step needs it; run the training step before it first")
    with safe_open(path, "pt") as file:
        return {name.removeprefix("ema."): file.get_tensor(name) for name in file.keys() if name.startswith("ema.")}  # noqa: SIM118


def state_metadata(path: Path) -> dict:
    """What a training state was saved with, and its step."""
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["training"])
