"""`--policy NAME|FILE`: a stock policy by its name, or a policy file compiled now."""

from __future__ import annotations

import os

from runner.errors import ConfigError

_LONGEST = 1 << 20
_SUFFIX = ".policy"


def read(text: str) -> str | bytes:
    """Give a stock policy's name as it is, and the filter of a file, which has a slash.

    A file may include others of its own directory, NAME.policy by NAME. Raises ConfigError.
    """
    if "/" not in text:
        return text
    from runner.seccomp import compile_policy

    directory = os.path.dirname(text)
    try:
        policy = _read(text)
        sources = {
            name.removesuffix(_SUFFIX): _read(os.path.join(directory, name))
            for name in os.listdir(directory)
            if name.endswith(_SUFFIX)
        }
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        message = f"--policy: {text!r}: {why}"
        raise ConfigError(message) from None
    return compile_policy(policy, name=text, arch=os.uname().machine, sources=sources)


def _read(path: str) -> str:
    with open(path, "rb") as file:
        text = file.read(_LONGEST + 1)
    if len(text) > _LONGEST:
        message = f"--policy: {path!r}: it is longer than 1 MiB, and so no policy"
        raise ConfigError(message)
    return text.decode()
