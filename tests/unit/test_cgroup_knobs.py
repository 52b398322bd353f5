"""Knobs on files as kernels write them: what is written for a limit, and to take it back."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from runner.cgroup import device_program
from runner.cgroup.blockio import IoV1, IoV2, disk_of
from runner.cgroup.cpus import CpusV1, CpusV2, from_text, inherit, to_text
from runner.cgroup.devices import Device, DevicesV1, device_of
from runner.cgroup.files import Directory
from runner.cgroup.pressure import PressureMeter
from runner.cgroup.share import ShareV1, ShareV2
from runner.config import DeviceAccess, IoLimit, Limits
from runner.errors import ConfigError, HostError


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Directory]:
    (tmp_path / "group").mkdir()
    directory = Directory(str(tmp_path / "group"))
    yield directory
    directory.close()


class Files:
    """The files of a group; reading one empties it, so that each write is seen by itself."""

    def __init__(self, path: Path, files: Mapping[str, str]) -> None:
        self.path = path / "group"
        for name, text in files.items():
            (self.path / name).write_text(text)

    def __getitem__(self, name: str) -> str:
        text = (self.path / name).read_text()
        (self.path / name).write_text("")
        return text


def test_share_v2_writes_quota_with_its_period_and_weight(
    tmp_path: Path, group: Directory
) -> None:
    stat = "nr_periods 0\nnr_throttled 4\nthrottled_usec 9\n"
    files = Files(tmp_path, {"cpu.stat": stat, "cpu.weight": "", "cpu.max": ""})
    knob = ShareV2(group)
    knob.prepare(Limits(cpu_quota=1.5, cpu_weight=7))
    assert (files["cpu.max"], files["cpu.weight"]) == ("150000 100000", "7")
    (files.path / "cpu.stat").write_text("nr_periods 9\nnr_throttled 6\nthrottled_usec 11\n")
    assert knob.measure() == {"throttled_periods": 2, "throttled_ns": 2000}
    knob.prepare(Limits(cpu_quota=1.5, cpu_weight=7))
    assert (files["cpu.max"], files["cpu.weight"]) == ("", "")
    knob.prepare(Limits())
    assert (files["cpu.max"], files["cpu.weight"]) == ("max 100000", "100")
    assert knob.measure() == {}


@pytest.mark.parametrize(("weight", "shares"), [(1, 10), (100, 1024), (10_000, 102_400)])
def test_share_v1_has_v2s_weights_in_shares(
    tmp_path: Path, group: Directory, weight: int, shares: int
) -> None:
    names = ("cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us")
    stat = {"cpu.stat": "nr_periods 0\nnr_throttled 0\nthrottled_time 0\n"}
    files = Files(tmp_path, dict.fromkeys(names, "") | stat)
    knob = ShareV1(group)
    assert files["cpu.cfs_period_us"] == "100000"
    knob.prepare(Limits(cpu_quota=0.5, cpu_weight=weight))
    assert (files["cpu.cfs_quota_us"], files["cpu.shares"]) == ("50000", str(shares))
    (files.path / "cpu.stat").write_text("nr_periods 1\nnr_throttled 1\nthrottled_time 77\n")
    assert knob.measure() == {"throttled_periods": 1, "throttled_ns": 77}
    knob.prepare(Limits())
    assert (files["cpu.cfs_quota_us"], files["cpu.shares"]) == ("-1", "1024")


def test_share_without_bandwidth_control_is_a_host_error(
    tmp_path: Path, group: Directory
) -> None:
    Files(tmp_path, {"cpu.stat": "", "cpu.weight": ""})
    with pytest.raises(HostError) as caught:
        ShareV2(group)
    assert caught.value.missing == "this kernel's cgroups have no cpu.max"
    assert caught.value.hint == "use a kernel with CONFIG_CFS_BANDWIDTH"


def test_cpus_v1_are_the_parents_first_and_again_at_last(
    tmp_path: Path, group: Directory
) -> None:  # FG11
    files = Files(tmp_path, {"cpuset.cpus": "\n", "cpuset.mems": "\n"})
    (tmp_path / "cpuset.cpus").write_text("0-3\n")
    (tmp_path / "cpuset.mems").write_text("0\n")
    inherit(group)
    assert (files["cpuset.cpus"], files["cpuset.mems"]) == ("0-3\n", "0\n")
    (files.path / "cpuset.cpus").write_text("0-3\n")
    knob = CpusV1(group)
    (files.path / "cpuset.cpus").write_text("")
    knob.prepare(Limits(cpus={2, 0}))
    assert files["cpuset.cpus"] == "0,2"
    knob.prepare(Limits())
    assert files["cpuset.cpus"] == "0-3\n"


def test_cpus_v2_that_do_not_take_effect_are_a_host_error(
    tmp_path: Path, group: Directory
) -> None:
    files = Files(tmp_path, {"cpuset.cpus": "", "cpuset.cpus.effective": "0-1\n"})
    knob = CpusV2(group)
    knob.prepare(Limits(cpus={1}))
    assert files["cpuset.cpus"] == "1"
    (files.path / "cpuset.cpus.effective").write_text("0-1\n")
    with pytest.raises(HostError) as caught:
        knob.prepare(Limits(cpus={1, 5}))
    assert caught.value.missing == "CPU 5 cannot be used here"
    files["cpuset.cpus"]
    knob.prepare(Limits())
    assert files["cpuset.cpus"] == "\n"


@pytest.mark.parametrize(
    ("text", "cpus"), [(b"\n", set()), (b"0\n", {0}), (b"0-2,5,7-8\n", {0, 1, 2, 5, 7, 8})]
)
def test_cpu_list_is_read_as_the_kernel_writes_it(text: bytes, cpus: set[int]) -> None:
    assert from_text(text) == cpus
    assert from_text(to_text(cpus)) == cpus


@pytest.fixture
def any_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take any number for a disk's."""
    monkeypatch.setattr("runner.cgroup.blockio.disk_of", lambda device: device)


@pytest.mark.usefixtures("any_disk")
def test_io_v2_writes_all_keys_and_frees_the_disks_of_before(
    tmp_path: Path, group: Directory
) -> None:
    files = Files(tmp_path, {"io.max": ""})
    knob = IoV2(group)
    knob.prepare(Limits(io=(IoLimit(device="8:0", read_bytes=5, write_ops=6),)))
    assert files["io.max"] == "8:0 rbps=5 wbps=max riops=max wiops=6"
    knob.prepare(Limits())
    assert files["io.max"] == "8:0 rbps=max wbps=max riops=max wiops=max"


@pytest.mark.usefixtures("any_disk")
def test_io_v1_writes_a_rate_to_each_file_where_0_is_none(
    tmp_path: Path, group: Directory
) -> None:
    names = [
        f"blkio.throttle.{way}_{unit}_device"
        for way in ("read", "write")
        for unit in ("bps", "iops")
    ]
    files = Files(tmp_path, dict.fromkeys(names, ""))
    knob = IoV1(group)
    knob.prepare(Limits(io=(IoLimit(device="8:0", write_bytes=5),)))
    assert [files[name] for name in names] == ["8:0 0", "8:0 0", "8:0 5", "8:0 0"]
    knob.prepare(Limits())
    assert [files[name] for name in names] == ["8:0 0"] * 4


def test_disk_that_does_not_exist_is_a_host_error() -> None:
    with pytest.raises(HostError) as caught:
        disk_of("4095:7")
    assert caught.value.missing == "io: 4095:7 is on no disk"
    with pytest.raises(HostError) as caught:
        disk_of("/nowhere")
    assert caught.value.missing == "io: cannot look at /nowhere: No such file or directory"


def test_devices_v1_denies_all_and_then_allows(tmp_path: Path, group: Directory) -> None:
    files = Files(tmp_path, {"devices.deny": "", "devices.allow": ""})
    knob = DevicesV1(group)
    knob.prepare(Limits(devices=(DeviceAccess("/dev/null"),)))
    assert (files["devices.deny"], files["devices.allow"]) == ("a", "c 1:3 rw")
    knob.prepare(Limits())
    assert (files["devices.deny"], files["devices.allow"]) == ("", "a")


def test_device_is_known_by_its_path_or_its_numbers() -> None:
    assert device_of(DeviceAccess("/dev/null")) == Device("c", 1, 3, "rw")
    assert device_of(DeviceAccess("b 8:*", "m")) == Device("b", 8, None, "m")
    assert str(Device("b", None, 2, "r")) == "b *:2 r"


WANTED = {"m": 1, "r": 2, "w": 4}


def allows(program: bytes, kind: str, major: int, minor: int, access: str) -> bool:
    """Interpret a device program as the kernel's machine would."""
    wanted = sum(WANTED[letter] for letter in access)
    context = struct.pack("=III", wanted << 16 | {"b": 1, "c": 2}[kind], major, minor)
    registers = [0] * 11
    at = 0
    while True:
        code, both, offset, value = struct.unpack_from("=BBhi", program, at * 8)
        target, source = both & 15, both >> 4
        at += 1
        if code == 0x61:
            (registers[target],) = struct.unpack_from("=I", context, offset)
        elif code == 0xBF:
            registers[target] = registers[source]
        elif code == 0xB7:
            registers[target] = value
        elif code == 0x57:
            registers[target] &= value
        elif code == 0x77:
            registers[target] >>= value
        elif code == 0x55:
            at += offset if registers[target] != value else 0
        else:
            assert code == 0x95
            return bool(registers[0])


RULES = [Device("c", 1, 3, "rw"), Device("b", 8, None, "r"), Device("c", None, 5, "m")]


@pytest.mark.parametrize(
    ("device", "allowed"),
    [
        (("c", 1, 3, "r"), True),
        (("c", 1, 3, "rw"), True),
        (("c", 1, 3, "m"), False),
        (("c", 1, 3, "rm"), False),
        (("b", 1, 3, "r"), False),
        (("c", 1, 4, "r"), False),
        (("c", 2, 3, "r"), False),
        (("b", 8, 0, "r"), True),
        (("b", 8, 77, "r"), True),
        (("b", 8, 77, "w"), False),
        (("b", 9, 0, "r"), False),
        (("c", 136, 5, "m"), True),
        (("c", 136, 6, "m"), False),
        (("c", 1, 5, "r"), False),
    ],
)
def test_device_program_allows_what_a_rule_allows_and_no_more(
    device: tuple[str, int, int, str], allowed: bool
) -> None:
    assert allows(device_program.assemble(RULES), *device) is allowed
    assert not allows(device_program.assemble([]), *device)


def test_pressure_gives_totals_since_prepare_and_none_where_there_is_no_file(
    tmp_path: Path, group: Directory
) -> None:
    files = Files(tmp_path, {"cpu.pressure": "some avg10=1.50 total=7\nfull avg10=0 total=2\n"})
    meter = PressureMeter(group)
    meter.prepare(Limits(pressure=True))
    text = "some avg10=1.50 total=9\nfull avg10=0 total=2\n"
    (files.path / "cpu.pressure").write_text(text)
    assert meter.measure() == {"cpu_pressure_some_ns": 2000, "cpu_pressure_full_ns": 0}
    meter.prepare(Limits())
    assert meter.measure() == {}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Limits(cpu_quota=0), "Limits.cpu_quota: 0: give how many CPUs' time, "),
        (lambda: Limits(cpu_quota=True), "Limits.cpu_quota: True: give how many CPUs' time, "),
        (lambda: Limits(cpu_quota=math.nan), "Limits.cpu_quota: nan: give how many CPUs"),
        (lambda: Limits(cpu_weight=10_001), "Limits.cpu_weight: 10001: give 1 to 10000"),
        (lambda: Limits(cpus=[]), "Limits.cpus: []: give the numbers of one or more CPUs"),
        (lambda: Limits(cpus=[0, -1]), "Limits.cpus: [0, -1]: give the numbers of one or"),
        (lambda: Limits(cpus=[8192]), "Limits.cpus: [8192]: give the numbers of one or more"),
        (lambda: Limits(swap=-1), "Limits.swap: -1: give 0 to "),
        (lambda: Limits(swap=False), "Limits.swap: False: give 0 to "),
        (lambda: IoLimit(device="sda", read_ops=9), "IoLimit.device: 'sda': give an absolute"),
        (lambda: IoLimit(device="8:0"), "IoLimit: '8:0': give one of read_bytes, write_bytes"),
        (
            lambda: IoLimit(device="8:0", read_ops=1),
            "IoLimit.read_ops: 1: the least that the kernel can hold is 2",
        ),
        (lambda: DeviceAccess("a *:*"), "DeviceAccess.device: 'a *:*': give an absolute path"),
        (lambda: DeviceAccess("/dev/null", ""), "DeviceAccess.access: '': give some of r, w"),
        (lambda: DeviceAccess("/dev/null", "rr"), "DeviceAccess.access: 'rr': give some of"),
        (lambda: DeviceAccess("/dev/null", "rx"), "DeviceAccess.access: 'rx': give some of"),
    ],
)
def test_limit_that_is_nonsense_is_refused_with_what_to_give(
    make: Any,  # noqa: ANN401 - a lambda
    message: str,
) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert str(caught.value).startswith(message)


def test_limits_made_of_lists_can_be_keys_and_are_equal() -> None:
    rates = [IoLimit(device="8:0", read_ops=2)]
    one = Limits(cpus=[1, 0], io=rates, devices=[DeviceAccess("/dev/null")])  # type: ignore[arg-type]
    assert {one: 1}[Limits(cpus=(0, 1), io=tuple(rates), devices=one.devices)] == 1
