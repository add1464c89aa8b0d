"""Time per step through ComfyUI's sampler node over the library alone: the same inputs, one run, taken in turns.

Needs a ComfyUI, found as tests/comfy finds it (COMFYUI_PATH, the one this pack lies in, or ~/comfy/ComfyUI).
"""

import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests" / "comfy"
sys.path.insert(0, str(TESTS))

from comfy_server import ComfyMissingError, find_installation  # noqa: E402
from worker import run_worker  # noqa: E402


def main() -> None:
    try:
        installation = find_installation()
    except ComfyMissingError as missing:
        print(f"skipped: {missing}")
        return
    with tempfile.TemporaryDirectory() as folder:
        found = run_worker(installation, "model_worker.py", Path(folder) / "report.json", "timing")
    print("| | ms per step |\n|---|---|")
    print(f"| MRT Masked-Region Sampler in ComfyUI | {1000 * found['node']:.1f} |")
    print(f"| mrt_core alone | {1000 * found['library']:.1f} |")
    print(f"| ratio | {found['ratio']:.3f} |")


if __name__ == "__main__":
    main()
