"""`Limits.disk` and `Limits.inodes`: what a run may write in places of its own. X10."""

from __future__ import annotations

import errno
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import runner
from runner import (
    ChildError,
    ConfigError,
    ErrorLocation,
    HostError,
    Limits,
    MiB,
    Mount,
    Result,
    Sandbox,
    Status,
)
from runner.rootfs import TMP_INODES, TMP_SIZE

pytestmark = pytest.mark.userns

PAGE = 4096
TOUCH = """
import mmap, os
fd = os.open("/dev/shm/x", os.O_RDWR | os.O_CREAT)
os.truncate(fd, 2 << 20)
memory = mmap.mmap(fd, 2 << 20)
for page in range(0, 2 << 20, 4096):
    memory[page] = 1
"""


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as made:
        made.start()
        yield made


def run(sandbox: Sandbox, script: str, **limits: int) -> Result:
    return sandbox.run(["sh", "-c", script], limits=Limits(wall_time=60, **limits))


def ending(result: Result) -> tuple[Status, str | None, int | None, int | None]:
    return result.status, result.limit, result.exit_code, result.signal


def sizes(sandbox: Sandbox, **limits: int) -> list[int]:
    """Give bytes and inodes of /tmp, then of /dev/shm, as the program sees them."""
    show = run(sandbox, "stat -f -c '%S %b %c' /tmp /dev/shm", **limits)
    block, blocks, inodes, *shm = map(int, show.stdout.split())
    assert block == shm[0]
    return [block * blocks, inodes, block * shm[1], shm[2]]


@pytest.mark.parametrize("place", ["/tmp", "/dev/shm"])
def test_program_that_fails_with_its_place_full_is_disk_limit(
    sandbox: Sandbox, place: str
) -> None:
    fill = f"head -c 2M /dev/zero >{place}/x"
    full = run(sandbox, fill, disk=MiB)
    assert ending(full) == (Status.DISK_LIMIT, "disk", 1, None)
    assert run(sandbox, fill, disk=2 * MiB).status is Status.OK


def test_program_that_meets_the_limit_and_goes_on_is_ok(sandbox: Sandbox) -> None:
    fill = "head -c 2M /dev/zero >/tmp/x"
    assert run(sandbox, f"{fill}; true", disk=MiB).status is Status.OK
    assert run(sandbox, f"{fill}; rm /tmp/x; echo y >/tmp/y", disk=MiB).status is Status.OK


def test_program_that_fails_when_it_has_made_room_again_is_not_disk_limit(
    sandbox: Sandbox,
) -> None:
    """No kernel counts what a tmpfs has refused: of what is gone, nothing tells."""
    result = run(sandbox, "head -c 2M /dev/zero >/tmp/x; rm /tmp/x; exit 3", disk=MiB)
    assert ending(result) == (Status.NONZERO_EXIT, None, 3, None)


def test_program_that_fails_with_a_page_left_is_not_disk_limit(sandbox: Sandbox) -> None:
    result = run(sandbox, f"head -c {MiB - PAGE} /dev/zero >/tmp/x; exit 3", disk=MiB)
    assert ending(result) == (Status.NONZERO_EXIT, None, 3, None)
    result = run(sandbox, f"head -c {MiB} /dev/zero >/tmp/x; exit 3", disk=MiB)
    assert ending(result) == (Status.DISK_LIMIT, "disk", 3, None)


def test_program_that_touches_a_file_beyond_the_limit_dies_of_it(sandbox: Sandbox) -> None:
    """Memory that has no page to be is SIGBUS."""
    command = ["python3", "-Sc", TOUCH]
    result = sandbox.run(command, limits=Limits(disk=MiB, wall_time=60))
    assert ending(result) == (Status.DISK_LIMIT, "disk", None, signal.SIGBUS)


@pytest.mark.parametrize("make", [": >", "mkdir ", "ln -s x ", "mkfifo "])
def test_files_beyond_the_inode_limit_are_refused_and_named(
    sandbox: Sandbox, make: str
) -> None:
    script = f"cd /tmp; for i in 1 2 3 4 5 6; do {make}$i || exit 4; done"
    refused = run(sandbox, script, inodes=5)
    assert refused.status is Status.DISK_LIMIT
    assert refused.limit == "inodes"
    assert run(sandbox, script, inodes=6).status is Status.OK


def test_limits_of_one_run_do_not_hold_for_the_next(sandbox: Sandbox) -> None:
    own = [TMP_SIZE, TMP_INODES] * 2
    assert sizes(sandbox) == own
    assert sizes(sandbox, disk=MiB) == [MiB, TMP_INODES] * 2
    assert sizes(sandbox) == own  # nothing was written, so the places are the same
    assert run(sandbox, "echo x >/tmp/x; echo x >/dev/shm/x", disk=MiB, inodes=9).ok
    assert sizes(sandbox) == own
    assert sizes(sandbox, inodes=9) == [TMP_SIZE, 10] * 2
    assert sizes(sandbox, disk=100 * MiB) == [100 * MiB, TMP_INODES] * 2


def test_limits_hold_for_a_submission_whose_files_stay() -> None:
    with Sandbox(fresh="submission") as sandbox:
        assert run(sandbox, "head -c 512K /dev/zero >/tmp/x", disk=MiB).ok
        full = run(sandbox, "head -c 1M /dev/zero >/tmp/y", disk=MiB)
        assert ending(full) == (Status.DISK_LIMIT, "disk", 1, None)
        with pytest.raises(ChildError) as caught:
            run(sandbox, "true", disk=MiB // 2)
        at = (caught.value.location, caught.value.errno, caught.value.subject)
        assert at == (ErrorLocation.MOUNT_LIMIT, errno.EINVAL, "/tmp")
        assert str(caught.value).startswith("mount(limit)[")
        assert run(sandbox, "cat /tmp/x /tmp/y | wc -c").stdout == b"1048576\n"
        assert caught.value.hint == (
            "a place that is kept holds more than the limit already: raise it, or start anew"
        )


def test_limits_hold_beside_what_is_mounted_below_the_place(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "given").write_text("content")
    with Sandbox(mounts=[Mount.bind(str(tmp_path), "/tmp/box")]) as sandbox:
        script = "cat /tmp/box/given; head -c 2M /dev/zero >/tmp/x"
        for _ in range(2):
            result = run(sandbox, script, disk=MiB)
            assert ending(result) == (Status.DISK_LIMIT, "disk", 1, None)
            assert result.stdout == b"content"


def test_tmpfs_of_the_callers_is_held_too_and_put_back() -> None:
    with Sandbox(mounts=[Mount.tmpfs("/own")]) as sandbox:
        of_host = "stat -f -c %b /own; echo x >/own/x"
        before = run(sandbox, of_host).stdout
        result = run(sandbox, "head -c 2M /dev/zero >/own/x", disk=MiB)
        assert ending(result) == (Status.DISK_LIMIT, "disk", 1, None)
        assert run(sandbox, "true", disk=MiB).ok
        # Half of an odd number of pages: the kernel rounds its own size down, and 50% up.
        assert int(run(sandbox, of_host).stdout) - int(before) in {0, 1}


def test_limit_is_named_by_what_has_run_out(sandbox: Sandbox) -> None:
    """Both limits given: bytes first, where both have."""
    both = {"disk": MiB, "inodes": 1}
    assert run(sandbox, ": >/tmp/x; exit 1", **both).limit == "inodes"
    assert run(sandbox, "head -c 1M /dev/zero >/tmp/x; exit 1", **both).limit == "disk"
    # A limit that was not given is none, though the place's own is met.
    fill = "head -c 65M /dev/zero >/tmp/x"
    assert run(sandbox, fill, inodes=9).status is Status.NONZERO_EXIT
    assert run(sandbox, fill).status is Status.NONZERO_EXIT


@pytest.mark.parametrize("name", ["disk", "inodes"])
def test_limit_beside_a_writable_directory_of_the_callers_is_refused(
    tmp_path: Path, name: str
) -> None:
    mounts = [Mount.bind(str(tmp_path), "/box", readonly=False)]
    with Sandbox(mounts=mounts) as sandbox, pytest.raises(ConfigError) as caught:
        sandbox.run(["true"], limits=Limits(**{name: 4096}))
    assert str(caught.value) == (
        f"Limits.{name}: 4096: /box is writable and no limit of ours holds there: show it "
        "read-only, or give a tmpfs that is new for each run"
    )


def test_guarantee_is_given_only_where_nothing_else_is_writable(tmp_path: Path) -> None:
    with Sandbox(require=["disk"]) as sandbox:
        assert sandbox.run(["true"]).enforced["disk"] == "tmpfs"
    mounts = [Mount.bind(str(tmp_path), "/box", readonly=False)]
    assert runner.run(["true"], mounts=mounts).enforced["disk"] is None
    with pytest.raises(HostError) as caught:
        runner.run(["true"], mounts=mounts, require=["disk"])
    assert str(caught.value) == "the guarantee 'disk' cannot be given here"
    assert caught.value.hint == (
        "show no directory of yours writable: give a tmpfs, which is new for each run"
    )
