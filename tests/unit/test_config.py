"""Texts that the kernel cannot be told are refused when a configuration is made."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from runner import ALL_NAMESPACES, ConfigError, Hook, Mount, Rlimit, Runner
from runner.config import check_env

SURROGATE = "a\ud800"  # as json.loads() makes of "\ud800": no bytes stand for it


def runner(**fields: object) -> Runner:
    return Runner(**({"args": ["x"], "namespaces": ALL_NAMESPACES} | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("args", lambda text: runner(args=["x", text])),
        ("env", lambda text: runner(env={"A": text})),
        ("Runner.work_dir", lambda text: runner(work_dir=text)),
        ("Runner.host_name", lambda text: runner(host_name=text)),
        ("Runner.domain_name", lambda text: runner(domain_name=text)),
        ("Runner.sysctls", lambda text: runner(sysctls={"net.x": text})),
        ("Hook.args", lambda text: Hook(args=("x", text))),
        ("env", lambda text: Hook(args=("x",), env={"A": text})),
        ("Mount.target", lambda text: Mount.directory(f"/{text}")),
        ("Mount.source", lambda text: Mount.bind(f"/{text}", "/x")),
        ("Mount.source", lambda text: Mount.symlink(text, "/x")),
    ],
)
@pytest.mark.parametrize(
    ("text", "why"), [(SURROGATE, "some of it is no text of utf-8"), ("\0", "a NUL byte")]
)
def test_text_without_bytes_or_with_nul_is_refused(
    field: str, make: Callable[[str], object], text: str, why: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        make(text)
    message = str(caught.value)
    assert message.startswith(f"{field}: ")
    assert repr(text)[1:-1] in message
    assert message.endswith(why)


@pytest.mark.parametrize("env", [{"": "x"}, {"A=B": "x"}, {"\0": "x"}])
def test_name_that_no_variable_can_have_is_refused(env: dict[str, str]) -> None:
    for make in (check_env, lambda env: Hook(args=("x",), env=env)):
        with pytest.raises(ConfigError, match=r"^env: .* neither = nor NUL$"):
            make(env)


@pytest.mark.parametrize("size", [64, 65])
def test_host_name_is_counted_in_bytes(size: int) -> None:
    name = "\udcff" * size  # each is one byte, which is not UTF-8
    if size == 64:
        assert runner(host_name=name).host_name == name
        return
    with pytest.raises(ConfigError, match=r"^Runner.host_name: .*: at most 64 bytes$"):
        runner(host_name=name)


def test_rlimit_that_the_kernel_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        Rlimit(16, 1, 1)
    assert str(caught.value) == "Rlimit.resource: 16: give one of resource.RLIMIT_*"
