"""Hostile: looks for the judge's answers, prints the first it finds, and fails if there is none."""

import contextlib
import glob
import os
import sys

MOST_DIRECTORIES = 5_000
SKIPPED = {"/proc", "/sys", "/usr"}


def answers():
    """Name files that may be answers: beside every open file, in every directory."""
    for link in glob.glob("/proc/[0-9]*/fd/*") + glob.glob("/proc/[0-9]*/cwd"):
        with contextlib.suppress(OSError):
            target = os.readlink(link)
            yield target
            yield os.path.splitext(target)[0] + ".ans"
            yield from glob.glob(f"{link}/**/*.ans", recursive=True)
    for start in (os.path.abspath(".."), "/tmp", "/"):
        for count, (path, directories, files) in enumerate(os.walk(start)):
            if count > MOST_DIRECTORIES:
                break
            directories[:] = [d for d in directories if os.path.join(path, d) not in SKIPPED]
            yield from (os.path.join(path, name) for name in files)


for name in answers():
    if name.endswith(".ans"):
        with contextlib.suppress(OSError), open(name) as file:
            print(file.read())
            sys.exit(0)
sys.exit(3)
