"""START in a policy: compiled to a mark, and replaced by the secret of one start."""

from __future__ import annotations

import dataclasses

from runner import plan
from runner.config import Runner
from runner.plan import Op
from runner.seccomp import compile_policy, evaluate, load, syscalls
from runner.seccomp.rules import Action, Verb
from runner.seccomp.start import START, with_secret

KILL = Action(Verb.KILL)
ALLOW = Action(Verb.ALLOW)


def exec_with(program: bytes, last: int, name: str = "execve", arch: str = "x86_64") -> Action:
    number = syscalls.numbers(arch)[name]
    return evaluate.run(program, number, arch, (1, 2, 3, 4, 5, last))


def test_strict_policy_allows_an_exec_that_knows_the_secret_alone() -> None:
    for arch in syscalls.AUDIT_ARCHS:
        program, secret = with_secret(load("strict", arch))
        for name in ("execve", "execveat"):
            assert exec_with(program, secret, name, arch) == ALLOW
            for wrong in (0, START, secret ^ 1, secret ^ 1 << 32, secret & 2**32 - 1):
                assert exec_with(program, wrong, name, arch) == KILL


def test_secret_is_another_for_each_start() -> None:
    secrets = {with_secret(load("strict"))[1] for _ in range(20)}
    assert len(secrets) == 20
    assert all(-(2**63) <= secret < 2**63 for secret in secrets)


def test_filter_without_start_is_left_as_it_is() -> None:
    program = load("default")
    assert with_secret(program) == (program, 0)


def test_secret_replaces_comparisons_alone() -> None:
    # An answer or a mask that happens to look like the mark is none.
    text = f"default allow\nkill read if arg0 & {START & 2**32 - 1:#x} == 0"
    program = compile_policy(text, name="test", arch="x86_64")
    assert with_secret(program)[0] == program


def test_plan_gives_filter_and_exec_the_same_secret() -> None:
    runner = Runner(args=("true",), seccomp=load("strict", "x86_64"))
    for exec_file, op, at in ((None, Op.EXEC, 0), (3, Op.EXEC_FD, 1)):
        steps = plan.program(runner, candidates=(b"true",), files=(0,), exec_file=exec_file)
        by_op = {step.op: step for step in steps}
        assert exec_with(bytes(by_op[Op.SECCOMP].data), by_op[op].args[at]) == ALLOW
        assert exec_with(bytes(by_op[Op.SECCOMP].data), START) == KILL
    plain = dataclasses.replace(runner, seccomp=load("default", "x86_64"))
    steps = plan.program(plain, candidates=(b"true",), files=(0,))
    assert steps[-1].args[0] == 0
