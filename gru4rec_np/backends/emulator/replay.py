"""A kernel's run as a web page: threads, the memory that they touch, and who waits, step by step.

The page needs no server and loads nothing.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from gru4rec_np.backends.emulator.report import Report

PAGE = Path(__file__).with_name("replay.html")
MOST = 300  # steps on a page
ROW = 128  # bytes that are shown in a row: four sectors


def page(report: Report, file: str, most: int = MOST) -> str:
    """The steps of a launch as an HTML page.

    Args:
        report: of a launch with `profile=True`.
        file: the name of the source that is shown; steps in other files are left out.
        most: steps, the first ones.

    Raises:
        ValueError: no step is in the file.
    """
    steps: list[dict[str, Any]] = []
    arrays: list[dict[str, Any]] = []
    numbers: dict[str, int] = {}
    for step in report.steps:
        if step.place[0] != file or len(steps) == most:
            continue
        shown: dict[str, Any] = {"b": step.block, "w": step.warp, "k": step.kind}
        shown["l"] = step.place[1]
        if step.kind != "barrier":
            name = re.sub(r"argument \d+ \((\w+)\)|shared array (\w+)", r"\1\2", step.array)
            if name not in numbers:
                numbers[name] = len(arrays)
                arrays.append(
                    {"name": name, "bytes": step.bytes, "shared": step.is_shared, "rows": set()}
                )
            rows = arrays[numbers[name]]["rows"]
            rows.update(at // ROW for at in step.offsets.values())
            rows.update((at + step.size - 1) // ROW for at in step.offsets.values())
            shown |= {"a": numbers[name], "n": max(1, step.size // 4)}
            shown["t"] = [[thread, at // 4] for thread, at in step.offsets.items()]
        steps.append(shown)
    if not steps:
        raise ValueError(f"no step of the launch is in {file}")
    for array in arrays:
        array["rows"] = sorted(array["rows"])
    data = {
        "source": report.sources[file].splitlines(),
        "threads": report.threads,
        "steps": steps,
        "arrays": arrays,
    }
    text = json.dumps(data, separators=(",", ":")).replace("</", "<\\/")
    return PAGE.read_text(encoding="utf-8").replace("/*DATA*/null", text)
