"""Judge submissions: compile, run on every test, check, give a verdict.

`runner.judge.judge.Judge` does one submission at a time with its own sandboxes; `worker.py` at
the top of the tree has many of them work side by side.
"""

from __future__ import annotations
