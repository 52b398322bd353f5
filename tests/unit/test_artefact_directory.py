"""Artefacts on disk: bounds, other processes, what others have put there. X6, demand 21."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runner import Artefact, ArtefactDirectory, ConfigError, HostError

CONTENT = b"what is kept"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "kept"


@pytest.fixture
def kept(place: Path) -> Iterator[ArtefactDirectory]:
    with ArtefactDirectory(place) as made:
        yield made


def used(path: Path, *, seconds_ago: float) -> None:
    now = time.time()
    os.utime(path, (now, now - seconds_ago))


def test_artefact_is_there_for_another_process_and_the_next_start(place: Path) -> None:
    with ArtefactDirectory(place) as one:
        assert one.get(DIGEST) is None
        assert one.add(CONTENT).digest == DIGEST
    with ArtefactDirectory(place) as other:
        found = other.get(DIGEST)
        assert found is not None
        assert (found.read(), found.digest, found.size) == (CONTENT, DIGEST, len(CONTENT))
        assert other.get(DIGEST) is found, "it is not read again while it is held"
        stats = other.stats()
    assert (stats.artefacts, stats.bytes_kept, stats.hits, stats.misses) == (1, 12, 2, 0)
    assert stats.corrupted == stats.evicted == 0


def test_artefact_of_an_fd_is_a_copy_of_all_of_it(kept: ArtefactDirectory) -> None:
    fd = os.memfd_create("source")
    try:
        os.write(fd, CONTENT)
        assert kept.add(fd).digest == DIGEST
        assert os.lseek(fd, 0, os.SEEK_CUR) == len(CONTENT), "its position is the caller's"
    finally:
        os.close(fd)
    assert kept.add(b"").read() == b""


def test_directory_and_files_are_ours_alone_whatever_the_umask(place: Path) -> None:
    before = os.umask(0)
    try:
        with ArtefactDirectory(place) as kept:
            kept.add(CONTENT)
    finally:
        os.umask(before)
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert stat.S_IMODE((place / DIGEST).stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_directory_that_others_may_enter_is_refused(place: Path, mode: int) -> None:
    place.mkdir()
    place.chmod(mode)
    with pytest.raises(ConfigError, match=r"^path: .*/kept'?: others own it or may enter it"):
        ArtefactDirectory(place)


def test_directory_that_is_a_link_or_cannot_be_made_is_refused(
    place: Path, tmp_path: Path
) -> None:
    place.symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="Not a directory: give a directory"):
        ArtefactDirectory(place)
    with pytest.raises(ConfigError, match="No such file or directory"):
        ArtefactDirectory(tmp_path / "no" / "such")


@pytest.mark.parametrize("bound", ["max_bytes", "max_files"])
@pytest.mark.parametrize("value", [0, -1, True, 1.5])
def test_bound_that_is_none_is_refused(place: Path, bound: str, value: Any) -> None:  # noqa: ANN401
    with pytest.raises(ConfigError, match=f"^{bound}: "):
        ArtefactDirectory(place, **{bound: value})


def test_closed_directory_is_used_no_more(place: Path) -> None:
    kept = ArtefactDirectory(place)
    kept.close()
    kept.close()
    with pytest.raises(ValueError, match="is closed"):
        kept.get(DIGEST)
    with pytest.raises(ValueError, match="is closed"):
        kept.add(CONTENT)


# Bounds


@pytest.mark.parametrize(
    "bounds", [{"max_bytes": 10}, {"max_files": 2}], ids=["bytes", "files"]
)
def test_what_was_not_used_for_longest_goes_first(place: Path, bounds: dict[str, int]) -> None:
    with ArtefactDirectory(place, **bounds) as kept:
        one, two = kept.add(b"1111").digest, kept.add(b"2222").digest
        used(place / one, seconds_ago=2)
        used(place / two, seconds_ago=1)
        assert kept.get(one) is not None  # used now
        three = kept.add(b"3333").digest
        assert {path.name for path in place.iterdir()} == {one, three}
        stats = kept.stats()
        assert (stats.artefacts, stats.bytes_kept, stats.evicted) == (2, 8, 1)
        used(place / one, seconds_ago=1)
        kept.add(b"1111")  # used again
        used(place / three, seconds_ago=0.5)
        kept.add(b"4444")
        assert kept.get(three) is None


def test_artefact_larger_than_the_bound_is_given_and_not_kept(place: Path) -> None:
    with ArtefactDirectory(place, max_bytes=3) as kept:
        assert kept.add(b"1234").read() == b"1234"
        assert list(place.iterdir()) == []


def test_artefact_that_is_evicted_lives_for_who_holds_it(place: Path) -> None:
    with ArtefactDirectory(place, max_files=1) as kept:
        held = kept.add(CONTENT)
        used(place / DIGEST, seconds_ago=1)
        kept.add(b"another")
        assert kept.get(DIGEST) is None
        assert held.read() == CONTENT


def test_artefact_that_is_evicted_while_it_is_read_is_read_to_its_end(
    kept: ArtefactDirectory, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.add(CONTENT)
    removed = []

    def utime(*args: object, **options: object) -> None:  # what comes when it is open
        if not removed:
            removed.append(kept.discard(DIGEST))

    monkeypatch.setattr(os, "utime", utime)
    found = kept.get(DIGEST)
    assert removed == [True]
    assert list(place.iterdir()) == []
    assert found is not None
    assert found.read() == CONTENT


def test_discard_and_clear_remove_files(kept: ArtefactDirectory, place: Path) -> None:
    kept.add(CONTENT)
    assert kept.discard(DIGEST)
    assert not kept.discard(DIGEST)
    kept.add(CONTENT)
    (place / "notes").write_text("not ours")
    kept.clear()
    assert [path.name for path in place.iterdir()] == ["notes"]


# What others may have put there


def plant(place: Path, kind: str) -> None:
    """Put something in the place of an entry."""
    entry = place / DIGEST
    secret = place.parent / "secret"
    secret.write_bytes(CONTENT)  # even the right content, by a way that is not ours
    match kind:
        case "truncated":
            entry.write_bytes(CONTENT[:-1])
        case "changed":
            entry.write_bytes(CONTENT.replace(b"kept", b"swap"))
        case "longer":
            entry.write_bytes(CONTENT + b"!")
        case "giant":
            entry.touch()
            os.truncate(entry, 1 << 40)
        case "link":
            entry.symlink_to(secret)
        case "dangling":
            entry.symlink_to("nothing")
        case "fifo":
            os.mkfifo(entry)
        case "socket":
            with socket.socket(socket.AF_UNIX) as bound:
                at = os.open(place, os.O_PATH)
                bound.bind(f"/proc/self/fd/{at}/{DIGEST}")
                os.close(at)


KINDS = ["truncated", "changed", "longer", "giant", "link", "dangling", "fifo", "socket"]


@pytest.mark.parametrize("kind", KINDS)
def test_entry_that_is_not_what_it_should_be_is_removed_and_never_given(
    kept: ArtefactDirectory, place: Path, kind: str
) -> None:
    plant(place, kind)
    assert kept.get(DIGEST) is None
    assert list(place.iterdir()) == []
    stats = kept.stats()
    assert (stats.corrupted, stats.hits, stats.misses) == (1, 0, 1)
    kept.add(CONTENT)
    found = kept.get(DIGEST)
    assert found is not None
    assert found.read() == CONTENT
    assert (place.parent / "secret").read_bytes() == CONTENT


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "changed"])
def test_entry_in_the_place_of_an_artefact_is_replaced_and_not_written_through(
    kept: ArtefactDirectory, place: Path, kind: str
) -> None:
    plant(place, kind)
    (place.parent / "secret").write_bytes(b"not to be touched")
    kept.add(CONTENT)
    entry = (place / DIGEST).lstat()
    assert (stat.S_ISREG(entry.st_mode), stat.S_IMODE(entry.st_mode)) == (True, 0o600)
    assert (place / DIGEST).read_bytes() == CONTENT
    assert (place.parent / "secret").read_bytes() == b"not to be touched"


def test_entry_that_is_a_directory_is_told(kept: ArtefactDirectory, place: Path) -> None:
    (place / DIGEST).mkdir()
    with pytest.raises(HostError, match=f"{DIGEST} cannot be removed: Is a directory"):
        kept.get(DIGEST)
    with pytest.raises(HostError, match="cannot be written to: Is a directory"):
        kept.add(CONTENT)
    assert [path.name for path in place.iterdir()] == [DIGEST], "nothing half-written is left"


@pytest.mark.parametrize(
    "digest", ["", "../secret", "/etc/passwd", DIGEST.upper(), DIGEST[:-1], DIGEST + "\n", "."]
)
def test_digest_that_is_none_is_no_path(
    kept: ArtefactDirectory, place: Path, digest: str
) -> None:
    (place.parent / "secret").write_bytes(CONTENT)
    assert kept.get(digest) is None
    assert not kept.discard(digest)
    assert (place.parent / "secret").exists()
    assert kept.stats().corrupted == 0


def test_directory_that_is_swapped_for_another_is_not_looked_up_again(
    kept: ArtefactDirectory, place: Path
) -> None:
    kept.add(CONTENT)
    place.rename(place.parent / "moved")
    place.mkdir(mode=0o755)
    (place / DIGEST).write_bytes(b"another")
    found = kept.get(DIGEST)
    assert found is not None
    assert found.read() == CONTENT
    assert kept.stats().corrupted == 0


# Other processes


def test_what_somebody_began_to_write_and_died_is_removed_later(
    kept: ArtefactDirectory, place: Path
) -> None:
    for name, age in (("new.0", 7200), ("new.1", 60), ("other", 7200)):
        (place / name).touch()
        used(place / name, seconds_ago=age)
    kept.add(CONTENT)
    assert {path.name for path in place.iterdir()} == {DIGEST, "new.1", "other"}


def work(place: Path, seed: int, found: Any) -> None:  # noqa: ANN401 - a queue of multiprocessing
    """Add, get and evict the same artefacts as another does."""
    wrong = hits = 0
    with ArtefactDirectory(place, max_files=5, max_bytes=5000) as kept:
        for number in range(400):
            content = b"%d" % (number * (seed + 2) % 12) * 300
            if number % 3:
                kept.add(content)
            one = kept.get(hashlib.sha256(content).hexdigest())
            wrong += one is not None and one.read() != content
            hits += one is not None
        stats = kept.stats()
    found.put((wrong, hits, stats.corrupted))


def test_two_processes_at_once_give_what_they_should_and_hold_to_the_bounds(
    place: Path,
) -> None:
    context = multiprocessing.get_context("fork")
    found = context.SimpleQueue()
    both = [context.Process(target=work, args=(place, seed, found)) for seed in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join(60)
        assert one.exitcode == 0
    for _ in both:
        wrong, hits, corrupted = found.get()
        assert (wrong, corrupted, hits > 0) == (0, 0, True)
    found.close()
    files = list(place.iterdir())
    assert len(files) <= 5
    assert sum(path.stat().st_size for path in files) <= 5000
    assert all(hashlib.sha256(path.read_bytes()).hexdigest() == path.name for path in files)


def test_process_that_is_killed_while_it_writes_leaves_no_entry(place: Path) -> None:
    pid = os.fork()
    if pid == 0:
        os.rename = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
        ArtefactDirectory(place).add(CONTENT)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    with ArtefactDirectory(place) as kept:
        assert kept.get(DIGEST) is None
        assert kept.stats().artefacts == 0
        kept.add(CONTENT)
        assert kept.get(DIGEST) is not None


def test_threads_share_one(kept: ArtefactDirectory) -> None:
    wrong: list[bytes] = []

    def many() -> None:
        for number in range(100):
            content = b"%d" % (number % 7)
            if kept.add(content).read() != content:
                wrong.append(content)

    threads = [threading.Thread(target=many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (wrong, kept.stats().artefacts) == ([], 7)


# The artefact itself

TOUCHES: dict[str, Callable[[int], object]] = {
    "mode": lambda fd: os.fchmod(fd, 0),
    "times": lambda fd: os.utime(fd, (1, 1)),
    "attribute": lambda fd: os.chmod(fd, 0o755) or os.setxattr(fd, "user.a", b"left"),
}


@pytest.mark.parametrize("touch", TOUCHES)
def test_artefact_that_somebody_has_touched_is_made_anew(touch: str) -> None:
    """A program of our own uid can, by /proc/self/exe, what its owner can."""
    artefact = Artefact(CONTENT)
    number = artefact.fileno()
    before = os.fstat(number)
    assert stat.S_IMODE(before.st_mode) == 0o555
    try:
        TOUCHES[touch](number)
    except OSError:  # no user attributes on tmpfs before Linux 6.6
        assert touch == "attribute"
    assert artefact.fileno() == number
    after = os.fstat(number)
    assert after.st_ino != before.st_ino
    assert (stat.S_IMODE(after.st_mode), os.listxattr(number)) == (0o555, [])
    assert artefact.read() == CONTENT
    assert os.fstat(artefact.fileno()).st_ino == after.st_ino, "and once is enough"
    assert not os.get_inheritable(number)
