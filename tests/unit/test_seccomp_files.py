"""Policies as files: what a file may include, and the cache of what was compiled."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.errors import ConfigError
from runner.seccomp import cache, compile_policy, files, load, native

ARCH = native(None)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory in which the cache keeps what it compiled."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "run-sandboxed"


def write(directory: Path, **texts: str) -> str:
    for name, text in texts.items():
        (directory / f"{name}.policy").write_text(text)
    return f"{directory}/{next(iter(texts))}.policy"


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of the policies that were compiled, one for each time."""
    names: list[str] = []

    def recorded(text: str, *, name: str, arch: str, sources: dict[str, str]) -> bytes:
        names.append(os.path.basename(name))
        return compile_policy(text, name=name, arch=arch, sources=sources)

    monkeypatch.setattr(files, "compile_policy", recorded)
    return names


@pytest.mark.usefixtures("kept")
def test_file_includes_its_neighbours_before_stock_policies(tmp_path: Path) -> None:
    path = write(tmp_path, mine="include strict\ninclude default", strict="kill getpid")
    text = "kill getpid\ninclude default"
    expected = compile_policy(text, name="x", arch=ARCH, sources=files.stock_texts())
    assert load(path) == expected


@pytest.mark.usefixtures("kept")
def test_neighbour_that_is_not_included_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "trap.policy")  # who opens it, waits
    (tmp_path / "binary.policy").write_bytes(b"\xff")
    path = write(tmp_path, mine="include more", more="default allow\n include deep", deep="")
    assert load(path) == compile_policy("default allow", name="x", arch=ARCH)
    write(tmp_path, more="default allow\ninclude tarp")
    with pytest.raises(ConfigError) as raised:
        load(path)
    assert str(raised.value) == (
        "more:2: there is no policy 'tarp' to include: did you mean 'trap'?"
    )
    write(tmp_path, more="include binary")
    with pytest.raises(ConfigError) as raised:
        load(path)
    assert str(raised.value) == f"policy: '{tmp_path}/binary.policy': it is not UTF-8 text"


@pytest.mark.usefixtures("kept")
def test_file_named_as_a_stock_policy_can_include_that_one(tmp_path: Path) -> None:
    path = write(tmp_path, default="kill getpid\ninclude default")
    assert load(path) != load("default")
    assert load(write(tmp_path, default="include default")) == load("default")


@pytest.mark.usefixtures("kept")
def test_presets_that_close_come_before_the_default_policy_alone_and_together(
    tmp_path: Path,
) -> None:
    presets = [name for name, _ in files.directory_of(files.PRESETS)]
    closing = [name for name in presets if name.startswith(("no-", "only-"))]
    assert set(presets) - set(closing) == {name for name in presets if name[:6] == "allow-"}
    for preset in closing:
        load(write(tmp_path, mine=f"include {preset}\ninclude default"))
    for order in (closing, closing[::-1]):
        every = [f"include {name}" for name in [*order, *sorted(set(presets) - set(closing))]]
        load(write(tmp_path, mine="\n".join(["default kill", *every])))


def test_presets_and_a_policy_are_combined_by_their_names(kept: Path, tmp_path: Path) -> None:
    text = "include no-exec\ninclude only-local-sockets\ninclude default"
    expected = compile_policy(text, name="x", arch=ARCH, sources=files.stock_texts())
    assert load("no-exec+only-local-sockets+default") == expected
    assert len(list(kept.iterdir())) == 1
    with pytest.raises(ConfigError) as raised:
        load("no-exec+defautl")
    assert str(raised.value).startswith(
        "policy: 'defautl' is not a stock policy: did you mean 'default'?; known: compiler, "
    )
    with pytest.raises(ConfigError) as raised:
        load("no-exec+no-devel")
    assert str(raised.value).startswith("no-exec+no-devel: no 'default' line")
    with pytest.raises(ConfigError) as raised:
        load("default+no-exec")
    assert "no-exec:3: can never apply to 'execve'" in str(raised.value)


def test_each_preset_and_policy_says_what_it_is_for() -> None:
    for name, text in files.stock_texts().items():
        assert text.startswith("# "), name
        assert 10 < len(files.about(text)) < 200, name
    assert files.about(files.stock_texts()["no-exec"]) == (
        "No other program: the one that is run was the last."
    )


def test_file_that_was_compiled_is_kept_by_its_content(
    kept: Path, tmp_path: Path, compiled: list[str]
) -> None:
    first = load(write(tmp_path, mine="default allow\ninclude other", other="kill getpid"))
    assert load(write(tmp_path, same="default allow\ninclude other")) == first
    assert compiled == ["mine.policy"]
    changed = load(write(tmp_path, same="default allow\ninclude other", other="kill getppid"))
    assert changed != first
    assert len(compiled) == 2
    assert load(f"{tmp_path}/same.policy", "aarch64") != changed
    assert len(compiled) == 3
    assert len(list(kept.iterdir())) == 3
    assert kept.stat().st_mode & 0o777 == 0o700


@pytest.mark.usefixtures("compiled")
def test_cache_that_others_may_write_is_neither_read_nor_written(
    kept: Path, tmp_path: Path, compiled: list[str]
) -> None:
    path = write(tmp_path, mine="default allow")
    right = load(path)
    (planted,) = kept.iterdir()
    planted.write_bytes(load("strict"))
    assert load(path) == load("strict")  # so it is read where it is ours alone
    kept.chmod(0o720)
    assert load(path) == right
    kept.chmod(0o700)
    kept.parent.chmod(0o702)
    assert load(path) == right
    kept.parent.chmod(0o700)
    kept.rename(kept.with_name("moved"))
    kept.symlink_to(kept.with_name("moved"))
    assert load(path) == right
    assert len(compiled) == 4


def test_cache_file_that_is_a_link_or_no_filter_is_made_anew(
    kept: Path, tmp_path: Path, compiled: list[str]
) -> None:
    path = write(tmp_path, mine="default allow")
    right = load(path)
    (entry,) = kept.iterdir()
    for bad in (b"", b"7 bytes", bytes(8 * 4097)):
        entry.write_bytes(bad)
        assert load(path) == right
    entry.unlink()
    planted = tmp_path / "planted.bpf"
    planted.write_bytes(load("strict"))
    entry.symlink_to(planted)
    assert load(path) == right
    assert len(compiled) == 5
    assert not entry.is_symlink()


def test_cache_that_cannot_be_made_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("relative", f"{tmp_path}/missing/deep", "/proc/self/fd"):
        monkeypatch.setenv("XDG_CACHE_HOME", place)
        assert cache.kept(["a"], lambda: b"made") == b"made"
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file or directory"),
        (b"\xff", "it is not UTF-8 text"),
        (b"#" * (1 << 20) + b"#", "it is longer than 1 MiB, and so no policy"),
    ],
)
def test_file_that_cannot_be_read_is_refused(
    tmp_path: Path, content: bytes | None, why: str
) -> None:
    path = tmp_path / "mine.policy"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        load(str(path))
    assert str(raised.value) == f"policy: '{path}': {why}"


def test_examples_of_the_documentation_compile() -> None:
    document = (Path(__file__).parents[2] / "docs" / "seccomp.md").read_text(encoding="utf-8")
    blocks = document.split("```\n")[1::2]
    policies = [block for block in blocks if block.startswith(("# Why", "include "))]
    assert len(policies) == 2
    for text in policies:
        for arch in ("x86_64", "aarch64"):
            assert compile_policy(text, name="doc", arch=arch, sources=files.stock_texts())
