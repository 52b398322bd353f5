"""`run-sandboxed pseudo`: a command that is root, in a user namespace and nowhere else."""

from __future__ import annotations

import os
from typing import Final

from runner.cli import ids, subcommand
from runner.config import Namespace, Runner


def run(values: subcommand.Values, words: list[str]) -> int:
    """Run the command, in the caller's session, directory and environment."""
    config = Runner(
        args=subcommand.command_or_shell(words),
        env=dict(os.environ),
        namespaces=Namespace.USER,
        retain_session=True,
        ignored_signals=subcommand.ignored_signals(),
        **ids.choose(values)._asdict(),
    )
    return subcommand.run(config, path=subcommand.search_path())


SUBCOMMAND: Final = subcommand.Subcommand(
    synopsis="pseudo [-g MAP] [-u MAP] [COMMAND [ARG...]]",
    about=(
        """Run COMMAND, by default $SHELL or else /bin/sh, as root of a new user namespace. \
Files, processes and the network are the host's, for whoever it is that its ids map to.""",
        ids.ABOUT,
    ),
    options=ids.OPTIONS,
    letters="g:u:",
    long=(),
    least=0,
    run=run,
)
