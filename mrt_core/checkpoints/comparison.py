"""How a file's tensors differ from those of the models that they are meant for."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..weights.quantisation import PLAIN_DTYPES, Quantisation
from ..weights.safetensors_header import TensorEntry

ONE_NUMBER = ((), (1,))  # shapes


@dataclass
class Comparison:
    """Collects the differences, each named as in the file."""

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)  # of another shape, or stored in another way

    def add(
        self,
        expected: Mapping[str, tuple[int, ...]],
        tensors: Mapping[str, TensorEntry],
        prefix: str,
        quantisation: Quantisation | None = None,
    ) -> None:
        """Compare the tensors that a file has for a model, `prefix` before each name, with the shapes expected of them."""
        if quantisation and quantisation.foreign:
            return
        layers = {f"{name}.weight": layer for name, layer in quantisation.layers.items()} if quantisation else {}
        sidecars = set(quantisation.sidecars) if quantisation else set()
        refused = set(quantisation.refused) if quantisation else set()
        self.missing += [prefix + name for name in expected if name not in tensors]
        self.unexpected += [prefix + name for name in tensors if name not in expected and name not in sidecars]
        for name, shape in expected.items():
            found, layer = tensors.get(name), layers.get(name)
            if found is None or (layer and layer.name in refused):  # whose shapes only its own software understands
                continue
            if found.shape != shape:
                self.misshapen.append(f"{prefix}{name} {list(found.shape)} instead of {list(shape)}")
            elif layer is None and found.dtype not in PLAIN_DTYPES:
                self.misshapen.append(f"{prefix}{name} in {found.dtype} instead of plain numbers")
            elif layer and layer.dtype not in (None, found.dtype):
                self.misshapen.append(f"{prefix}{name} in {found.dtype} instead of {layer.dtype}")

    def add_scales(self, tensors: Mapping[str, TensorEntry], prefix: str, quantisation: Quantisation) -> None:
        """Compare the scales of quantised layers: each of 8-bit numbers has one, of a number or one per row; no layer is made
        up."""
        for name, layer in quantisation.layers.items():
            if f"{name}.weight" not in tensors:
                self.missing.append(f"{prefix}{name}.weight")
            if layer.dtype is None:
                continue
            scales = [f"{name}.{scale}" for scale in ("weight_scale", "scale_weight") if f"{name}.{scale}" in tensors]
            if not scales:
                self.missing.append(f"{prefix}{name}.weight_scale")
            rows = tensors[f"{name}.weight"].shape[:1] if f"{name}.weight" in tensors else ()
            allowed = ((*rows, 1), rows) if layer.per_row else ONE_NUMBER
            self.misshapen += [
                f"{prefix}{scale} {list(tensors[scale].shape)} instead of one number{' per row' if layer.per_row else ''}"
                for scale in scales
                if tensors[scale].shape not in allowed or tensors[scale].dtype not in PLAIN_DTYPES
            ]
