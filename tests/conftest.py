"""What every test stands on: what this host can do, no leaks, no unexpected skips.

Markers (pyproject.toml) name the kernel feature that a test needs; where it is missing, the
test is skipped and the skip says what is missing. tests/expected-skips.txt lists the skips of
each tier, and with CI=true any other skip fails the session: coverage cannot rot silently.

After each test outside tests/unit the process must be as it was before: a test that leaves a
child, an fd, a cgroup, a mount or a temporary file behind fails, and names it. A sandbox that
outlives a test belongs in a fixture of a wider scope, which starts it.
"""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runner.cgroup import Parent
from runner.doctor import probes
from runner.host import detect

TESTS = Path(__file__).parent
MARK = "run-sandboxed"  # begins the name of all that we make on the host: groups, directories
KEEPER = str(TESTS.parent / "runner" / "keeper")
GRACE = 2.0  # seconds for what is on its way out: a killed keeper, a group the kernel empties


# What this host can do: each gives what is missing, or None.


@functools.cache
def missing_root() -> str | None:
    """Root of a user namespace with one id is a plain user by another name."""
    return None if detect().privileged else "uid 0"


@functools.cache
def missing_userns() -> str | None:
    command = ["unshare", "--user", "--map-root-user", "true"]
    if subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode == 0:
        return None
    return "user namespaces"


@functools.cache
def missing_cgroup() -> str | None:
    """Look for groups that measure and limit all that a run has of them."""
    parent = Parent.find(detect())
    if parent is not None and not parent.why_not:
        return None
    return "a cgroup tree that we may write to"


@functools.cache
def missing_landlock() -> str | None:
    return None if probes.landlock()[0] >= 6 else "Landlock with scopes"


MISSING: dict[str, Callable[[], str | None]] = {
    "root": missing_root,
    "userns": missing_userns,
    "cgroup": missing_cgroup,
    "landlock": missing_landlock,
}


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker, missing in MISSING.items():
        if item.get_closest_marker(marker) and (name := missing()):
            pytest.skip(f"needs {name}")


# Skips: what was skipped is compared with what was expected.


class Skips:
    """Notes each skip of the session, and fails the session for those nobody expects."""

    def __init__(self) -> None:
        self.tier = "root" if missing_root() is None else "user" if os.geteuid() else "userns"
        tiers = {self.tier, "user"} if self.tier == "userns" else {self.tier}
        self.expected: list[tuple[str, str]] = []
        self.unexpected: list[str] = []
        for line in (TESTS / "expected-skips.txt").read_text().splitlines():
            if line and not line.startswith("#"):
                tier, test, reason = line.split(maxsplit=2)
                if tier in tiers:
                    self.expected.append((test, reason))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self._note(report.nodeid, report.longrepr)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._note(report.nodeid, report.longrepr)

    def _note(self, test: str, longrepr: object) -> None:
        reason = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
        reason = reason.removeprefix("Skipped: ")
        if not any(
            fnmatch.fnmatchcase(test, tests) and fnmatch.fnmatchcase(reason, reasons)
            for tests, reasons in self.expected
        ):
            self.unexpected.append(f"{self.tier}  {test}  {reason}")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.unexpected and os.environ.get("CI") == "true":
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.unexpected:
            terminalreporter.section("skips that tests/expected-skips.txt does not list")
            for line in self.unexpected:
                terminalreporter.line(line)


def pytest_configure(config: pytest.Config) -> None:
    """Note skips, and have all temporary files where no other program's are."""
    config.pluginmanager.register(Skips())
    directory = tempfile.mkdtemp(prefix="tests.")
    os.chmod(directory, 0o1777)  # for tests that change their uid
    os.environ["TMPDIR"] = tempfile.tempdir = directory
    config.add_cleanup(lambda: remove(directory))


def remove(directory: str) -> None:
    """Remove all of it, even what a test has made without any rights, and we may not enter."""
    for top, names, _ in os.walk(directory):
        for path in (os.path.join(top, name) for name in names):
            if not os.path.islink(path):
                with contextlib.suppress(PermissionError):  # another user's
                    os.chmod(path, 0o700)
    shutil.rmtree(directory)


# Leaks: each gives the things of one kind that exist now.


def children() -> set[str]:
    """Our child processes, zombies too, and keepers of this checkout that nobody owns."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            name, _, rest = stat.read_text(errors="replace").rpartition(")")
            parent = int(rest.split()[1])
            if parent == os.getpid() or (parent == 1 and is_keeper(stat.parent)):
                found.add(f"process {name})")
    return found


def is_keeper(process: Path) -> bool:
    try:
        return os.readlink(process / "exe") == KEEPER
    except OSError:  # another user's, or a kernel thread
        return False


def fds() -> set[str]:
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that lists
            found.add(f"fd {fd} → {os.readlink(f'/proc/self/fd/{fd}')}")
    return found


def cgroup_roots() -> list[Path]:
    """Every mounted cgroup hierarchy, of either version."""
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return [Path(words[1]) for words in mounts if words[2] in {"cgroup", "cgroup2"}]


def cgroups() -> set[str]:
    """Groups that this process made, by the pid in their name."""
    mark = f".{os.getpid()}."
    return {
        f"cgroup {directory}/{name}"
        for root in cgroup_roots()
        for directory, names, _ in os.walk(root)
        for name in names
        if name.startswith(f"{MARK}.") and mark in name
    }


def mounts() -> set[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return {f"mount {line.split()[4]} ({line.rpartition(' - ')[2]})" for line in lines}


def temporary_files() -> set[str]:
    with os.scandir(tempfile.gettempdir()) as entries:
        return {f"file {entry.path}" for entry in entries if entry.name.startswith(MARK)}


def everything() -> set[str]:
    return children() | fds() | cgroups() | mounts() | temporary_files()


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves something behind."""
    if TESTS / "unit" in request.path.parents:
        yield
        return
    before = everything()
    yield
    deadline = time.monotonic() + GRACE
    while (left := everything() - before) and time.monotonic() < deadline:
        time.sleep(0.02)
    if left:
        pytest.fail("left behind: " + "; ".join(sorted(left)), pytrace=False)
