"""Numbers decoded from their bytes are those that PyTorch reads."""

import pytest
import torch

from mrt_core.weights.safetensors_file import TORCH_DTYPES
from mrt_core.weights.scalars import decode_scalar

VALUES = [0.0, -0.0, 1.0, -2.5, 16.0, 3.14159, 1e-6, 65504.0, float("inf"), float("nan")]


def bits_of(tensor: torch.Tensor) -> bytes:
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
def test_floats(dtype):
    for value in torch.tensor(VALUES, dtype=TORCH_DTYPES[dtype]):
        decoded = torch.tensor(decode_scalar(bits_of(value), dtype), dtype=torch.float64)
        assert torch.equal(decoded.nan_to_num(7.0), value.double().nan_to_num(7.0))


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2"])
def test_every_float_of_eight_bits(dtype):
    decoded = torch.tensor([decode_scalar(bytes([byte]), dtype) for byte in range(256)])
    expected = torch.arange(256).to(torch.uint8).view(TORCH_DTYPES[dtype]).float()
    assert torch.equal(decoded.isnan(), expected.isnan())
    assert torch.equal(decoded.nan_to_num(7.0), expected.nan_to_num(7.0))
    numbers = ~expected.isnan()
    assert torch.equal(decoded[numbers].signbit(), expected[numbers].signbit())


@pytest.mark.parametrize("dtype", ["I32", "I64"])
def test_whole_numbers(dtype):
    for value in (0, 1, -16, 2**31 - 1):
        decoded = decode_scalar(bits_of(torch.tensor(value, dtype=TORCH_DTYPES[dtype])), dtype)
        assert decoded == value and type(decoded) is float
