"""A real ComfyUI, found on this machine and started in a base directory of its own with this pack as a custom node."""

import importlib.util
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple, Self

PACK = Path(__file__).parents[2]
PACK_NAME = "mrt-layers"  # the folder in custom_nodes
CPU_ONLY = Path(__file__).parent / "cpu_only"  # its sitecustomize.py is run at the start of the server's Python
NEEDED_MODULES = ("aiohttp", "alembic", "comfyui_frontend_package", "torch", "torchaudio")
PYTHON_IN_VENV = ("bin/python", "Scripts/python.exe")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
LOG_TAIL = 4000  # characters of the log in an error


class ComfyMissingError(Exception):
    """There is no ComfyUI, or no Python that could run it; the message says where it was looked for."""


class ComfyDiedError(Exception):
    """The server did not start, or ended; the message has the end of its log."""


class Installation(NamedTuple):
    """A ComfyUI folder and the Python that runs it."""

    folder: Path
    python: Path


def is_comfy(folder: Path) -> bool:
    """Whether a folder holds ComfyUI."""
    return all((folder / name).is_file() for name in ("main.py", "comfyui_version.py", "folder_paths.py"))


def find_folder() -> Path:
    """The ComfyUI in COMFYUI_PATH, else the one this pack is installed in, else ~/comfy/ComfyUI."""
    if os.environ.get("COMFYUI_PATH"):
        folder = Path(os.environ["COMFYUI_PATH"]).expanduser().resolve()
        if not is_comfy(folder):
            raise ComfyDiedError(
                f"COMFYUI_PATH is {folder}, which is not ComfyUI's folder; set it to the one of main.py."
            )
        return folder
    places = [PACK.parents[1]] if PACK.parent.name == "custom_nodes" else []
    places.append(Path.home() / "comfy" / "ComfyUI")
    for place in places:
        if is_comfy(place):
            return place.resolve()
    looked = " or ".join(map(str, places))
    raise ComfyMissingError(f"no ComfyUI at {looked}; set COMFYUI_PATH to its folder to run the tests in tests/comfy")


def find_python(folder: Path) -> Path:
    """The Python in COMFYUI_PYTHON, else that of a .venv or venv in or beside ComfyUI's folder, else this one."""
    if os.environ.get("COMFYUI_PYTHON"):
        python = Path(os.environ["COMFYUI_PYTHON"]).expanduser()
        if not python.is_file():
            raise ComfyDiedError(f"COMFYUI_PYTHON is {python}, which is not a file; set it to ComfyUI's interpreter.")
        return python
    for place in (folder, folder.parent):
        for name in (".venv", "venv"):
            for program in PYTHON_IN_VENV:
                if (place / name / program).is_file():
                    return place / name / program  # not resolved: the link's place says which packages it imports
    if all(map(importlib.util.find_spec, NEEDED_MODULES)):
        return Path(sys.executable)
    raise ComfyMissingError(
        f"no Python for the ComfyUI at {folder}: no .venv or venv in or beside it, and {sys.executable} lacks its "
        "requirements; set COMFYUI_PYTHON"
    )


def find_installation() -> Installation:
    """ComfyUI's folder and its Python, or a ComfyMissingError."""
    folder = find_folder()
    return Installation(folder, find_python(folder))


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def server_environment() -> dict[str, str]:
    """This process' environment, with what lets a CUDA-built torchvision be imported, and without downloads."""
    paths = [str(CPU_ONLY), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}


class ComfyServer:
    """ComfyUI on the CPU at a free port of this machine, in a base directory of its own; `with` starts and stops it."""

    def __init__(self, installation: Installation, base: Path, *arguments: str):
        self.installation = installation
        self.base = base
        self.arguments = arguments
        self.log_file = base / "server.log"
        self.start_seconds = 0.0
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where it serves, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    def folder(self, name: str) -> Path:
        """A folder of the base directory, such as input, output or models/loras; made if it is not there."""
        folder = self.base / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def start(self, seconds: float = 600) -> None:
        """Start the server and wait until it serves."""
        link = self.folder("custom_nodes") / PACK_NAME
        if not link.exists():
            link.symlink_to(PACK, target_is_directory=True)
        database = self.folder("user") / "comfyui.db"
        self.port = free_port()
        command = [
            *(str(self.installation.python), "main.py", "--cpu"),
            *("--listen", "127.0.0.1", "--port", str(self.port)),
            *("--base-directory", str(self.base), "--database-url", f"sqlite:///{database}"),
            *("--preview-method", "latent2rgb", "--disable-auto-launch"),
            "--disable-api-nodes",  # and with them all that the page would fetch from the internet
            *self.arguments,
        ]
        begin = time.monotonic()
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self.installation.folder, env=server_environment(), stdout=log, stderr=subprocess.STDOUT
            )
        try:
            self._wait_until_it_serves(begin + seconds)
        except BaseException:
            self.stop()
            raise
        self.start_seconds = time.monotonic() - begin

    def _wait_until_it_serves(self, deadline: float) -> None:
        while time.monotonic() < deadline:
            self.check_alive()
            try:
                with urllib.request.urlopen(f"{self.url}/system_stats", timeout=10):
                    return
            except (urllib.error.URLError, TimeoutError, ConnectionError):
                time.sleep(0.2)
        raise ComfyDiedError(f"ComfyUI did not serve in time; the end of its log:\n{self.log()[-LOG_TAIL:]}")

    def check_alive(self) -> None:
        """Raise an error with the end of the log if the process has ended."""
        if self._process is None:
            raise ComfyDiedError("ComfyUI is not running; call start() first.")
        if self._process.poll() is not None:
            tail = self.log()[-LOG_TAIL:]
            raise ComfyDiedError(f"ComfyUI ended with {self._process.returncode}; the end of its log:\n{tail}")

    def stop(self, seconds: float = 10) -> None:
        """End the server: ask first, then kill."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def log(self) -> str:
        """All that the server wrote so far, without colours."""
        return COLOURS.sub("", self.log_file.read_text(encoding="utf-8", errors="replace"))


if __name__ == "__main__":  # for .ci/run: the Python of the ComfyUI that the tests will start, or an error
    try:
        sys.stdout.write(f"{find_installation().python}\n")
    except ComfyMissingError as error:
        sys.exit(str(error))
