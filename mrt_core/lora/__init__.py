"""LoRA: files of low-rank changes to a transformer's weights, in every naming that is in use (spec 7.3)."""

from .apply import apply_loras
from .extract import ExtractedLora, extract_lora
from .file import Lora, LowRank, read_lora, save_lora
from .report import LoraReport, inspect_lora, is_lora
from .student import student_info

__all__ = [
    "ExtractedLora",
    "Lora",
    "LoraReport",
    "LowRank",
    "apply_loras",
    "extract_lora",
    "inspect_lora",
    "is_lora",
    "read_lora",
    "save_lora",
    "student_info",
]
