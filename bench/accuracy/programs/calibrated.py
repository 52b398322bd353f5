"""calibrated.py KIND AMOUNT: as calibrated.c, in Python.

What it holds is more than what it touches on purpose, by the interpreter: so it asks the kernel
what its processes have (own_bytes): anonymous and shared memory, each page by its share, what
the peak was higher, page tables and the threads' kernel stacks.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import sys
import threading
import time
from collections.abc import Callable

TASKS = 4
PROCESSES = 8
PAGE = 4096
KERNEL_STACK = 16 * 1024
held: list[object] = []  # so that nothing is given back before the end


def burn(ns: int) -> None:
    end = time.thread_time_ns() + ns
    while time.thread_time_ns() < end:
        sum(range(2000))


def burn_in_kernel(ns: int) -> None:
    buffer = bytearray(1 << 16)
    with open("/dev/zero", "rb", buffering=0) as zero:
        end = time.thread_time_ns() + ns
        while time.thread_time_ns() < end:
            zero.readinto(buffer)


def burn_by_threads(ns: int) -> None:
    threads = [threading.Thread(target=burn, args=(ns // TASKS,)) for _ in range(TASKS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def burn_by_children(ns: int, *, orphaned: bool = False) -> int:
    reading, writing = os.pipe()
    for _ in range(TASKS):
        if os.fork() == 0:
            if not orphaned or os.fork() == 0:
                burn(ns // TASKS)
            os.write(writing, b"%d\n" % time.process_time_ns())
            os._exit(0)
    os.close(writing)
    with open(reading, encoding="ascii") as reports:
        used = sum(map(int, reports))
    with contextlib.suppress(ChildProcessError):  # there is none left
        while os.wait():
            pass
    return used


def burn_by_orphans(ns: int) -> int:
    return burn_by_children(ns, orphaned=True)


def touch_fd(size: int, fd: int) -> None:
    os.ftruncate(fd, size)
    touch_map(mmap.mmap(fd, size))


def touch_map(memory: mmap.mmap) -> None:
    for at in range(0, len(memory), PAGE):
        memory[at] = 1
    held.append(memory)


def touch_heap(size: int) -> None:
    memory = bytearray(size)
    memory[::PAGE] = b"\1" * (size // PAGE)
    held.append(memory)


def touch_memfd(size: int) -> None:
    touch_fd(size, os.memfd_create("memory"))


def touch_shm(size: int) -> None:
    touch_fd(size, os.open("/dev/shm/memory", os.O_RDWR | os.O_CREAT))


def touch_sysv(size: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.shmat.restype = ctypes.c_void_p
    segment = libc.shmget(0, ctypes.c_size_t(size), 0o1600)
    memory = libc.shmat(segment, None, 0)
    assert memory != ctypes.c_void_p(-1).value, os.strerror(ctypes.get_errno())
    ctypes.memset(memory, 1, size)


def write_file(size: int) -> int:
    with open("/tmp/file", "wb", buffering=0) as file:
        file.writelines(bytes(1 << 20) for _ in range(size >> 20))
    return size  # no process has it mapped


def touch_by_many(size: int) -> int:
    reading, writing = os.pipe()
    waiting, done = os.pipe()
    touched, all_touched = os.pipe()
    for _ in range(PROCESSES):
        if os.fork() == 0:
            os.close(done)
            os.close(all_touched)
            touch_map(mmap.mmap(-1, size // PROCESSES, flags=mmap.MAP_PRIVATE))
            os.write(writing, b"\n")
            os.read(touched, 1)  # only now is each page's share what it stays
            os.write(writing, b"%d\n" % own_bytes())
            os.read(waiting, 1)
            os._exit(0)
    os.close(writing)
    with open(reading, encoding="ascii") as reports:
        for _ in range(PROCESSES):
            reports.readline()
        os.close(all_touched)
        others = sum(int(reports.readline()) for _ in range(PROCESSES))
        own = own_bytes()
        os.close(done)
    return others + own - own_bytes()  # what is added to our own at the end


def kernels_word(path: str) -> dict[str, int]:
    """Give the lines "Name: number …" of a file in /proc."""
    with open(path, encoding="ascii") as lines:
        words = [line.split() for line in lines if ":" in line]
    return {word[0]: int(word[1]) for word in words if len(word) > 1 and word[1].isdigit()}


def own_bytes() -> int:
    status, maps = kernels_word("/proc/self/status"), kernels_word("/proc/self/smaps_rollup")
    kib = maps["Pss_Anon:"] + maps["Pss_Shmem:"] + status["VmHWM:"] - status["VmRSS:"]
    return (kib + status["VmPTE:"]) * 1024 + status["Threads:"] * KERNEL_STACK


BURNERS: dict[str, Callable[[int], int | None]] = {
    "spin": burn,
    "threads": burn_by_threads,
    "children": burn_by_children,
    "orphans": burn_by_orphans,
    "system": burn_in_kernel,
}
ALLOCATORS: dict[str, Callable[[int], int | None]] = {
    "touch": touch_heap,
    "tmpfs": write_file,
    "memfd": touch_memfd,
    "shm": touch_shm,
    "sysv": touch_sysv,
    "many": touch_by_many,
}


def main() -> None:
    kind, amount = sys.argv[1], int(sys.argv[2])
    if kind in BURNERS:
        others = BURNERS[kind](amount * 1_000_000) or 0
        report = {"cpu_ns": time.process_time_ns() + others}
    else:
        others = ALLOCATORS[kind](amount << 20) or 0
        report = {"bytes": amount << 20, "own_bytes": own_bytes() + others}
    print(json.dumps(report), flush=True)
    os._exit(0)  # what the interpreter does at its end, nobody could report


if __name__ == "__main__":
    main()
