"""Write docs/api.md from the docstrings of the public names: `python tools/build_api.py`."""

import inspect
import re
from dataclasses import is_dataclass
from pathlib import Path

import mrt_core
from mrt_core.tasks.options import DEFAULTS

PAGE = Path(__file__).parents[1] / "docs" / "api.md"
START = """# The public names

`from mrt_core import ...` gives eight names; everything else may move. Made from the docstrings by `python tools/build_api.py`.
Sizes and boxes are pixels of the frame; pictures are uint8 arrays (height, width, 4) with straight alpha, or (height, width, 3).
"""


def signature_of(function) -> str:
    """A signature without modules before names; a default of SamplingOptions is called what it is."""
    text = str(inspect.signature(function)).replace(repr(DEFAULTS), "DEFAULTS")
    text = re.sub(r"\b(?:[a-z_]+\.)+(?=\w)", "", text).replace(" -> None", "").replace("<factory>", "{}")
    return re.sub(r"\((self|cls)(, )?", "(", text)


def entry(name: str) -> str:
    """The section of one public name."""
    value = getattr(mrt_core, name)
    home = f"`mrt_core.{mrt_core._HOMES[name]}`"
    call = "" if inspect.isclass(value) and issubclass(value, Exception) else signature_of(value)
    lines = [f"## {name}", f"```python\n{name}{call}\n```", f"From {home}. {inspect.getdoc(value)}"]
    if inspect.isclass(value):
        for method, member in vars(value).items():
            if method.startswith("_"):
                continue
            if isinstance(member, property):
                lines.append(f"**`.{method}`** {inspect.getdoc(member) or ''}".rstrip())
            elif callable(getattr(value, method)) and not (is_dataclass(value) and inspect.isclass(member)):
                function = getattr(value, method)
                lines.append(f"**`.{method}{signature_of(function)}`**\n\n{inspect.getdoc(function)}")
    return "\n\n".join(lines)


def page() -> str:
    """The whole page."""
    return START + "\n" + "\n\n".join(entry(name) for name in mrt_core._HOMES) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
