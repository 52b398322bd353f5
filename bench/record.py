"""Measured data on disk: bench/data/NAME.json, with when and where it was measured.

The pictures and tables of docs/ are made from these files alone, and so can be made again.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import re
from pathlib import Path
from typing import Any

from runner.cgroup import Parent
from runner.host import detect

DATA = Path(__file__).with_name("data")
PICTURES = Path(__file__).parents[1] / "docs" / "pictures"


def conditions() -> dict[str, str]:
    """Tell what the figures depend on, now."""
    parent = Parent.find(detect())
    return {
        "date": dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "kernel": platform.release(),
        "processor": processor(),
        "python": platform.python_version(),
        "groups": "none" if parent is None or parent.why_not else "cgroups",
        "load": load(),
    }


def processor() -> str:
    found = re.search(
        r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE
    )
    return f"{os.cpu_count()} × {found.group(1) if found else platform.machine()}"


def load() -> str:
    """Give the load average, and how much of the last 10 s somebody waited for a CPU."""
    pressure = Path("/proc/pressure/cpu")
    text = f"{os.getloadavg()[0]:.1f}"
    if pressure.exists():
        found = re.search(r"some avg10=([\d.]+)", pressure.read_text())
        text += f", CPU pressure {float(found.group(1)):.0f} %" if found else ""
    return text


def describe(where: dict[str, str]) -> str:
    """Say it in one line."""
    return (
        f"{where['date']}, Linux {where['kernel']}, {where['processor']}, "
        f"load {where['load']} before and {where['load_after']} after"
    )


def save(name: str, where: dict[str, str], data: dict[str, Any]) -> Path:
    """Write the data, one series a line, so that a new measurement can be read as a diff."""
    DATA.mkdir(exist_ok=True)
    whole = {"measured": where | {"load_after": load()}} | data
    path = DATA / f"{name}.json"
    text = json.dumps(whole, indent=1)
    # Lists of numbers stand on one line.
    text = re.sub(r"\[\s+([-\d.,\s]+?)\s+\]", lambda m: f"[{' '.join(m[1].split())}]", text)
    path.write_text(text + "\n")
    return path


def read(name: str) -> dict[str, Any]:
    whole: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text())
    return whole


def draw(name: str, picture: str) -> None:
    """Write a picture of docs/."""
    PICTURES.mkdir(exist_ok=True)
    (PICTURES / f"{name}.svg").write_text(picture)
