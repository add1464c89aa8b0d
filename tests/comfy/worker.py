"""Scripts that ComfyUI's Python runs inside its folder: they import `pack_in_comfy` and write a report."""

import json
import subprocess
from pathlib import Path

from comfy_server import PACK, Installation, server_environment

ERROR_TAIL = 4000  # characters


def run_worker(installation: Installation, script: str, report: Path, *more: str) -> dict:
    """What `script`, a file of this folder, writes to `report`; fails with the end of its errors."""
    command = [installation.python, Path(__file__).with_name(script), PACK, report, *more]
    finished = subprocess.run(
        command, cwd=installation.folder, env=server_environment(), capture_output=True, text=True, timeout=900
    )
    assert finished.returncode == 0, finished.stderr[-ERROR_TAIL:]
    return json.loads(report.read_text())
