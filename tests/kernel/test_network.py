"""The network of a sandbox: none, the host's, or by pasta. K34, M27, M28."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runner import ConfigError, HostError, Sandbox, network

pytestmark = pytest.mark.userns

ROOT = Path(__file__).parents[2]
FETCH = """
import sys, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=3).status)
except OSError as error:
    print(type(error).__name__)
"""


def interfaces(**options: str) -> set[str]:
    with Sandbox(**options) as sandbox:  # type: ignore[arg-type]
        lines = sandbox.run(["cat", "/proc/net/dev"]).stdout.decode().splitlines()
        return {line.partition(":")[0].strip() for line in lines if ":" in line}


def test_network_is_none_but_a_loopback() -> None:
    assert interfaces() == {"lo"}


def test_network_of_the_host_has_its_interfaces() -> None:
    lines = Path("/proc/net/dev").read_text().splitlines()
    assert interfaces(network="host") == {
        line.partition(":")[0].strip() for line in lines if ":" in line
    }


def test_network_that_is_unknown_is_refused() -> None:
    with pytest.raises(ConfigError, match="network: 'slirp': known are none, host, pasta"):
        Sandbox(network="slirp")


def test_pasta_that_is_missing_is_a_host_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_PATH", "/nonexistent")
    with pytest.raises(HostError, match="pasta") as caught, Sandbox(network="pasta") as sandbox:
        sandbox.start()
    assert caught.value.hint == "install the package passt"


def test_pasta_without_its_device_is_a_host_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(network, "_TUN", str(tmp_path / "tun"))
    (tmp_path / "pasta").write_text("")
    (tmp_path / "pasta").chmod(0o755)
    monkeypatch.setattr(network, "_PATH", str(tmp_path))
    with pytest.raises(HostError, match="tun, which pasta needs"):
        network.pasta()


# A network of the test's own, with an address that a sandbox may reach and the loopback, which
# it may not: in a user and a network namespace, so that nothing of the machine's is touched.
OUTSIDE = """
import http.server, subprocess, sys, threading
sys.path.insert(0, sys.argv[1])
from runner import Sandbox
for command in (
    "ip link set lo up", "ip tuntap add tap0 mode tap", "ip addr add 10.9.9.1/24 dev tap0",
    "ip link set tap0 up", "ip route add default via 10.9.9.2",
    "ip addr add 10.8.8.8/32 dev lo",
):
    subprocess.run(command.split(), check=True)
class Quiet(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(204)
        self.end_headers()
    def log_message(self, *args):
        pass
server = http.server.ThreadingHTTPServer(("0.0.0.0", 8999), Quiet)
threading.Thread(target=server.serve_forever, daemon=True).start()
with Sandbox(network=sys.argv[2]) as sandbox:
    assert sandbox.start() is None
    assert sandbox.enforced["network"] == (None if sys.argv[2] == "pasta" else "namespace")
    for address in ("10.8.8.8", "127.0.0.1", "10.9.9.2"):
        words = ["python3", "-c", sys.argv[3], f"http://{address}:8999/"]
        print(address, sandbox.run(words).stdout.decode().strip())
"""


def outside(kind: str) -> list[str]:
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        pytest.skip("needs /dev/net/tun")
    done = subprocess.run(
        ["unshare", "-Urn", sys.executable, "-c", OUTSIDE, str(ROOT), kind, FETCH],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_pasta_reaches_the_outside_but_not_the_hosts_loopback() -> None:
    # The gateway's address would be the host's loopback, had it been asked for.
    assert outside("pasta") == ["10.8.8.8 204", "127.0.0.1 URLError", "10.9.9.2 URLError"]


def test_no_network_reaches_nothing() -> None:
    assert outside("none") == [
        "10.8.8.8 URLError",
        "127.0.0.1 URLError",
        "10.9.9.2 URLError",
    ]
