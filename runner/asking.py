"""What the caller says of a call that waits: the keeper's ASKED, and what is ANSWERed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from runner.config import Call
from runner.config.checks import refuse
from runner.config.supervision import ALLOW, KILL, is_errno
from runner.errors import ProtocolError
from runner.seccomp.names import describe
from runner.supervision import errno_of

if TYPE_CHECKING:
    from runner.config import Supervision
    from runner.wire import Reply

# As native/wire.h has them; any other verdict is an errno.
_LET: Final = 0
_END: Final = 0xFFFF


def answer(asked: Reply, wanted: Supervision) -> int:
    """Ask what becomes of a call and give the verdict. Raises what `decide` raises."""
    if wanted.decide is None:
        message = "the keeper asks about a call, and there is nobody to be asked"
        raise ProtocolError(message)
    name, _ = describe(asked.call_number, asked.call_arch)
    path = os.fsdecode(asked.readings[0]) if asked.readings else ""
    call = Call(name, asked.call_number, asked.call_arguments, path, asked.pid)
    said = wanted.decide(call)
    special = {ALLOW: _LET, KILL: _END}.get(said)
    if special is not None:
        return special
    if not is_errno(said):
        why = 'give "allow", "kill", or an errno such as "EACCES"'
        refuse("Supervision.decide", said, why)
    return errno_of(said)
