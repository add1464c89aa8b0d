"""For scripts run by ComfyUI's Python inside its folder as `SCRIPT REPOSITORY REPORT [MORE]`: importing this makes ComfyUI ready
on the CPU, with the report's folder as its base directory, and the repository the package that ComfyUI makes of it."""

import asyncio
import importlib.util
import sys
from pathlib import Path

REPOSITORY, REPORT = map(Path, sys.argv[1:3])
MORE = sys.argv[3:]
sys.argv[1:] = ["--cpu", "--base-directory", str(REPORT.parent)]
sys.path[:0] = [str(Path.cwd()), str(REPOSITORY / "tests")]  # ComfyUI's folder, and that of helpers which tests share

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()


def _load_pack() -> dict[str, type]:
    spec = importlib.util.spec_from_file_location(
        "mrt_pack", REPOSITORY / "__init__.py", submodule_search_locations=[str(REPOSITORY)]
    )
    sys.modules["mrt_pack"] = pack = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pack)

    async def register():
        extension = await pack.comfy_entrypoint()
        await extension.on_load()
        return await extension.get_node_list()

    return {node.GET_SCHEMA().node_id: node for node in asyncio.run(register())}


NODES = _load_pack()  # by their ids
