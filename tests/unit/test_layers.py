"""The layers of the package (docs/design.md): a module imports from its own or a lower layer.

Imports under TYPE_CHECKING count too: a type is a dependency like any other. The exception is
runner.host, whose frozen values are passed as arguments and so may be named everywhere.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LAYERS = (
    {"runner.errors", "runner.lazy", "runner.quick", "runner.scarcity", "runner.units"},
    {"runner.config", "runner.noise", "runner.repeated", "runner.result"},
    {"runner.idmap", "runner.landlock", "runner.rlimits", "runner.rootfs", "runner.seccomp"}
    | {"runner.supervision"},
    {"runner.plan", "runner.wire"},
    {"runner.host", "runner.doctor", "runner.cgroup", "runner.helper", "runner.measure"}
    | {
        "runner.accounts",
        "runner.asking",
        "runner.sources",
        "runner.staging",
        "runner.subid",
        "runner.tree",
    }
    | {"runner.console", "runner.network", "runner.resolve", "runner.streams"}
    | {"runner.disturbance", "runner.guarantees", "runner.observe"}
    | {"runner.files", "runner.guarantees", "runner.memfd", "runner.relay", "runner.watching"},
    {
        "runner",
        "runner.aio",
        "runner.blueprint",
        "runner.box",
        "runner.life",
        "runner.pool",
        "runner.process",
        "runner.sandbox",
    },
    {"runner.judge"},
    {"runner.cli", "worker"},
)
PURE = 4  # the first four layers touch no kernel: they compute, and can be tested anywhere
KERNEL_MODULES = {"_socket", "ctypes", "fcntl", "mmap", "multiprocessing", "select", "socket"}
KERNEL_MODULES |= {"subprocess", "threading"}

MODULES = sorted(
    path
    for path in [*ROOT.glob("runner/**/*.py"), *ROOT.glob("worker.py")]
    if ROOT / "runner" / "native" not in path.parents  # tools of the C sources, not installed
)


def module_name(path: Path) -> str:
    words = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(words[:-1] if words[-1] == "__init__" else words)


def layer_of(module: str) -> int | None:
    """Give a module's layer, which is that of its directory below `runner`; None if unknown."""
    name = ".".join(module.split(".")[:2])
    return next((layer for layer, names in enumerate(LAYERS) if name in names), None)


def imported(path: Path) -> Iterator[str]:
    """Give the modules that a file imports, but for the types of the host's values."""
    tree = ast.parse(path.read_bytes())
    type_only = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in block.body
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            assert node.module is not None
            if node.module == "runner.host" and node in type_only:
                continue
            for alias in node.names:
                # "from runner import units" names a module, "from runner import run" does not.
                name = f"{node.module}.{alias.name}"
                yield name if layer_of(name) is not None else node.module


def is_ours(module: str) -> bool:
    return module.partition(".")[0] in {"runner", "worker"}


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_module_imports_only_from_its_own_or_a_lower_layer(path: Path) -> None:
    module = module_name(path)
    layer = layer_of(module)
    assert layer is not None, f"{module} has no layer: add it to LAYERS"
    for name in filter(is_ours, imported(path)):
        other = layer_of(name)
        assert other is not None, f"{module} imports {name}, which has no layer"
        assert other <= layer, f"{module} (layer {layer}) imports {name} (layer {other})"


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if (layer_of(module_name(path)) or 0) < PURE],
    ids=module_name,
)
def test_module_of_a_pure_layer_imports_nothing_that_touches_the_kernel(path: Path) -> None:
    assert not {name.partition(".")[0] for name in imported(path)} & KERNEL_MODULES
