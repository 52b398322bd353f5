"""Nothing of one run is visible to the next in the same sandbox: docs/freshness.md.

Each channel is a pair of programs, one that leaves something and one that looks. In one sandbox
the second runs after the first, in another after a program that does nothing: it has to see the
same. What the first prints says that the attack has been made, or what stood in its way: with
the stock policy, and without any.
"""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import pytest

from runner import ChildError, Limits, Mount, Sandbox
from runner.host import detect

pytestmark = pytest.mark.userns

PYTHON = "/usr/bin/python3"
PRELUDE = """
import ctypes, errno, fcntl, os, resource, signal, socket, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
X86 = os.uname().machine == "x86_64"
def call(x86, arm, *args):
    words = [arg if isinstance(arg, bytes) else ctypes.c_long(arg) for arg in args]
    result = libc.syscall(ctypes.c_long(x86 if X86 else arm), *words)
    if result < 0: raise OSError(ctypes.get_errno(), "")
    return result
def add_key(ring): return call(248, 217, b"user\\0", b"mine\\0", b"x", 1, ring) and "left"
def tried(act, *args):
    try: return act(*args)
    except OSError as error: return errno.errorcode[error.errno]
def text(path):
    try: return open(path, errors="replace").read()
    except OSError as error: return errno.errorcode[error.errno]
def born():
    ticks = int(text("/proc/self/stat").rpartition(")")[2].split()[19])
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / 100
def keyctl(*args): return call(250, 219, *args)
def daemon(act):
    ready, done = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            act()
            os.write(done, b"x")
            time.sleep(50)
        os._exit(0)
    os.read(ready, 1)
SESSION, USER, USER_SESSION = -3, -4, -5
"""


class Channel(NamedTuple):
    """What is left, and how it is looked for. What `leave` prints is one of `outcome`."""

    leave: str
    look: str
    outcome: str = "left"
    filtered: str | None = None  # with the stock policy, where that is something else
    options: dict[str, Any] = {}  # noqa: RUF012 - never changed


TREE = """
for top, dirs, files in os.walk("/"):
    if top.startswith(("/usr", "/proc")): dirs.clear()
    elif os.access(top, os.W_OK):
        now, space = os.stat(top), os.statvfs(top)
        print(top, sorted(dirs), sorted(files), oct(now.st_mode), now.st_uid, now.st_nlink,
              now.st_size, now.st_atime_ns == now.st_mtime_ns == now.st_ctime_ns,
              tried(os.listxattr, top), space.f_ffree, space.f_bfree)
"""
WRITABLE = '[top for top, _, _ in os.walk("/") if os.access(top, os.W_OK)]'
NET = """
for name in sorted(os.listdir("/proc/self/net")):
    if name not in {"stat", "dev_snmp6", "netfilter", "rpc", "softnet_stat"}:
        shown = text("/proc/self/net/" + name)
        if name == "netlink": shown = shown.count("\\n")  # with addresses of the kernel's own
        elif name in {"protocols", "sockstat", "sockstat6"}:  # what follows is of the host
            shown = [line.split()[:3] for line in shown.splitlines()]
        print(name, shown)
"""
PROC_1 = """
for name in sorted(os.listdir("/proc/self")):
    print(name, text("/proc/1/" + name) if os.path.isfile("/proc/1/" + name) else None)
"""
SYSV = """
IDS = [tried(call, 29, 194, 0, 100, 0o1600), tried(call, 64, 190, 0, 1, 0o1600),
       tried(call, 68, 186, 0, 0o1600)]
"""

CHANNELS = {
    # Processes, and what belongs to one.
    "daemon": Channel(
        "daemon(lambda: None); print('left')",
        "print([name for name in os.listdir('/proc') if name.isdigit()].__len__())",
    ),
    "keeper's own child": Channel(
        """
pid = tried(call, 56, 220, 0x8000 | 17, 0, 0, 0, 0)
if pid == 0: time.sleep(50)
print(pid if isinstance(pid, str) else 'left')
""",
        "print([name for name in os.listdir('/proc') if name.isdigit()].__len__())",
        filtered="EPERM",
    ),
    "pid numbers": Channel(
        "[os.waitpid(os.fork() or os._exit(0), 0) for _ in range(20)]; print('left')",
        "pid = os.fork() or os._exit(0); print(os.getpid(), pid)",
    ),
    "own settings": Channel(
        """
os.nice(5); os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); os.umask(0o7)
resource.setrlimit(resource.RLIMIT_NOFILE, (9, 9)); libc.personality(0x0040000)
signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.setitimer(signal.ITIMER_REAL, 30)
libc.prctl(29, 12345, 0, 0, 0); libc.prctl(41, 1, 0, 0, 0); call(251, 30, 1, 0, 3 << 13)
libc.prctl(23, 0); print('left')
""",
        """
print(os.nice(0), len(os.sched_getaffinity(0)), os.umask(0), libc.personality(0xffffffff),
      resource.getrlimit(resource.RLIMIT_NOFILE), signal.getsignal(signal.SIGTERM),
      signal.getitimer(signal.ITIMER_REAL), libc.prctl(30), libc.prctl(42), libc.prctl(3),
      call(252, 31, 1, 0), text('/proc/self/coredump_filter'), text('/proc/self/oom_score_adj'))
""",
    ),
    "limits of pid 1": Channel(
        "both = (4242, 4242)\n"
        "print(tried(lambda: resource.prlimit(1, resource.RLIMIT_CPU, both) and 'left'))",
        "print(tried(lambda: resource.prlimit(1, resource.RLIMIT_CPU)))",
        "EPERM|left",
        "EPERM",
    ),
    "scheduling of pid 1": Channel(
        """
first = {min(os.sched_getaffinity(1))}
acts = [lambda: os.setpriority(os.PRIO_PROCESS, 1, 7), lambda: os.sched_setaffinity(1, first),
        lambda: call(251, 30, 1, 1, 3 << 13)]
outcomes = {tried(act) or 'left' for act in acts}
print(*({'left' if outcome in (None, 0) else outcome for outcome in outcomes}))
""",
        """
print(tried(os.getpriority, os.PRIO_PROCESS, 1), tried(os.sched_getaffinity, 1),
      tried(call, 252, 31, 1, 1), tried(os.sched_getscheduler, 1))
""",
        "EPERM|left",
    ),
    "nice of all of a user's": Channel(
        "tried(os.setpriority, os.PRIO_USER, os.getuid(), 7); print('left')",
        "print(tried(os.getpriority, os.PRIO_PROCESS, 1), os.nice(0))",
    ),
    "accounts of pid 1": Channel(
        """
for _ in range(30):
    if os.fork() == 0:
        if os.fork() == 0: sum(range(100000))
        os._exit(0)
    os.wait()
time.sleep(0.2)
print('left')
""",
        PROC_1,
    ),
    # Files.
    "files": Channel(
        f"""
for top in {WRITABLE}:
    for name in ('file', '.hidden'): open(top + '/' + name, 'w').write('x' * 10000)
    os.makedirs(top + '/a/b/c'); os.mkfifo(top + '/fifo'); os.symlink('/usr', top + '/link')
    listener = socket.socket(socket.AF_UNIX); listener.bind(top + '/socket')
print('left')
""",
        TREE,
    ),
    "traces of files that are gone": Channel(
        f"""
for top in {WRITABLE}:
    os.listdir(top)
    for n in range(42): open(top + '/file', 'w').close(); os.unlink(top + '/file')
print('left')
""",
        TREE + "os.mkdir('/tmp/x'); print(os.stat('/tmp/x').st_ino)",
    ),
    "numbers of files that had no name": Channel(
        f"""
for top in {WRITABLE}:
    for n in range(17): os.close(os.open(top, os.O_TMPFILE | os.O_RDWR, 0o600))
print('left')
""",
        f"print([os.fstat(os.open(top, os.O_TMPFILE | 2)).st_ino for top in {WRITABLE}])",
    ),
    "time of a look": Channel(
        f"[os.listdir(top) for top in {WRITABLE}]; print('left')",
        TREE,
    ),
    "attributes": Channel(
        "print(tried(lambda: os.setxattr('/tmp', 'user.x', b'42') or 'left'))",
        TREE,
        "EACCES|EOPNOTSUPP|EPERM|left",
    ),
    "file that is held by nobody but a message": Channel(
        """
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
fd = os.open('/tmp/big', os.O_CREAT | os.O_RDWR)
os.write(fd, bytes(2**20)); os.unlink('/tmp/big')
socket.send_fds(a, [b'x'], [fd, a.fileno(), b.fileno()])
print('left')
""",
        TREE,
    ),
    "locks on a file of the host": Channel(
        """
fd = os.open(sys.executable, os.O_RDONLY)
def lock():
    fcntl.flock(fd, fcntl.LOCK_EX)
    fcntl.lockf(fd, fcntl.LOCK_SH)
daemon(lock)
print('left')
""",
        """
fd = os.open(sys.executable, os.O_RDONLY)
print(tried(fcntl.flock, fd, fcntl.LOCK_EX | fcntl.LOCK_NB))
""",
    ),
    "times of files of the host": Channel(
        "for name in ('/usr/bin/id', '/etc/passwd', '/dev/null', '/dev/zero'):\n"
        "    open(name, 'rb').read(10)\n"
        "    print(*{tried(os.utime, name, (1, 1))})\n",
        "print([(now.st_atime_ns, now.st_mtime_ns) for name in ('/usr/bin/id', '/dev/null', "
        "'/dev/zero') for now in [os.stat(name)]])",
        "EPERM EPERM EPERM EPERM|EROFS EROFS EROFS EROFS|EROFS EROFS EPERM EPERM",
    ),
    "flags and locks of an open file": Channel(
        """
for fd in 0, 1, 2:
    if os.fstat(fd).st_rdev:
        fcntl.fcntl(fd, fcntl.F_SETSIG, 33); fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(fd, fcntl.LOCK_UN)
        print('left')
""",
        "print([(fcntl.fcntl(fd, fcntl.F_GETSIG), fcntl.fcntl(fd, fcntl.F_GETFL)) for fd in "
        "(0, 1, 2)])",
    ),
    "times of what proc shows": Channel(
        "[os.stat('/proc/' + name) for name in ('version', 'sys/kernel/osrelease', 'fs')]\n"
        "time.sleep(0.3); print('left')",
        "print([os.stat('/proc/' + name).st_ctime > born() - 0.1 for name in "
        "('version', 'sys/kernel/osrelease', 'fs', 'driver')])",
    ),
    "times of what sysfs shows": Channel(
        "for top, _, names in os.walk('/sys'): [tried(os.stat, f'{top}/{name}') for name in "
        "names]\ntime.sleep(0.3); print('left')",
        "print([os.stat('/sys/' + name).st_ctime > born() - 0.1 for name in "
        "('class/net', 'kernel/mm', 'fs', 'devices/system/cpu/online')])",
        options={"mounts": [Mount.sysfs()]},
    ),
    "mounts": Channel(
        "print(tried(lambda: call(165, 40, b'x\\0', b'/tmp\\0', b'tmpfs\\0', 0, 0) or 'left'))",
        "print([line.split()[3:] for line in open('/proc/self/mountinfo')].__len__())",
        "EPERM",
    ),
    "terminals": Channel(
        """
masters = [os.open('/dev/ptmx', os.O_RDWR | os.O_NOCTTY) for _ in range(3)]
print('left')
""",
        """
now = os.stat('/dev/pts')
print(now.st_mtime_ns == now.st_ctime_ns == now.st_atime_ns, sorted(os.listdir('/dev/pts')))
""",
        options={"mounts": [Mount.dev(pts=True)]},
    ),
    # System V and POSIX IPC.
    "System V objects": Channel(SYSV + "print('left')", SYSV + "print(IDS)"),
    "numbers of System V objects": Channel(
        "for _ in range(5):\n"
        "    call(31, 195, call(29, 194, 0, 100, 0o1600), 0, 0)\n"
        "    call(66, 191, call(64, 190, 0, 1, 0o1600), 0, 0)\n"
        "    call(71, 187, call(68, 186, 0, 0o1600), 0, 0)\n"
        "print('left')",
        SYSV + "print(IDS)",
    ),
    "message queue": Channel(
        "call(240, 180, b'mine\\0', os.O_CREAT | os.O_RDWR, 0o600, 0); print('left')",
        "print(tried(call, 240, 180, b'mine\\0', os.O_RDWR, 0, 0))",
    ),
    # Sockets.
    "abstract socket": Channel(
        """
def listen():
    global kept
    kept = socket.socket(socket.AF_UNIX); kept.bind('\\0mine'); kept.listen()
daemon(listen)
print('left')
""",
        "print(tried(socket.socket(socket.AF_UNIX).connect, '\\0mine'))" + NET,
    ),
    "abstract socket that is held by itself": Channel(
        """
for number in range(50):
    one = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); one.bind(f'\\0mine{number}')
    one.connect(f'\\0mine{number}')
    socket.send_fds(one, [b'x'], [one.fileno()])
print('left', flush=True)
os._exit(0)
""",
        NET,
    ),
    "packets that have no route": Channel(
        """
for kind, host in ((socket.AF_INET, '127.0.0.1'), (socket.AF_INET6, '::1')):
    for number in range(42):
        with socket.socket(kind, socket.SOCK_DGRAM) as one: tried(one.sendto, b'x', (host, 9))
print('left')
""",
        NET,
    ),
    "ports": Channel(
        """
def listen():
    global kept
    kept = socket.create_server(('', 4242)); other = socket.socket(type=socket.SOCK_DGRAM)
    other.bind(('', 4242))
daemon(listen)
print('left')
""",
        "print(tried(socket.socket().bind, ('', 4242)))" + NET,
    ),
    "connections of MPTCP that cannot be": Channel(
        """
def connect():
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262) as one:
        libc.connect(one.fileno(), struct.pack('=HH', 10, 9) + bytes(26), 28)
    return 'left'
print(*{tried(connect) for _ in range(42)})
""",
        NET,
        "left|EPROTONOSUPPORT|ENOPROTOOPT",  # a kernel without it
    ),
    "sockets that are counted for ever": Channel(
        """
def listen():
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262) as one:
        one.listen(); one.listen()
    return 'left'
print(*{tried(listen) for _ in range(42)})
""",
        "print([line.split()[2] for line in open('/proc/self/net/protocols')])",
        "left|EPROTONOSUPPORT|ENOPROTOOPT",
    ),
    "labels of IPv6 flows": Channel(
        """
with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as one:
    address = socket.inet_pton(socket.AF_INET6, '2001:db8::1')
    label = struct.pack('=16s4sBBHHHI', address, b'\\0\\5\\x43\\x21', 0, 255, 1, 60, 60, 0)
    one.setsockopt(socket.IPPROTO_IPV6, 32, label)
print('left')
""",
        NET,
    ),
    "connections that linger": Channel(
        """
with socket.create_server(('127.0.0.1', 4242)) as listener:
    one = socket.create_connection(('127.0.0.1', 4242)); other, _ = listener.accept()
    one.sendall(b'x' * 1000); other.recv(1000); one.close(); other.close()
print('left')
""",
        "print(tried(socket.socket().bind, ('', 4242)))" + NET,
        options={"loopback": True},
    ),
    "settings of the network": Channel(
        """
outcomes = set()
for top, _, names in os.walk('/proc/sys'):
    outcomes |= {tried(os.open, top + '/' + name, os.O_WRONLY) for name in names}
print(*sorted(map(str, outcomes)))
""",
        "print(text('/proc/sys/net/ipv4/ip_default_ttl'), text('/proc/sys/kernel/hostname'))",
        "EACCES EROFS|EROFS",
    ),
    "host name": Channel(
        "print(tried(lambda: socket.sethostname('other') or 'left'))",
        "print(socket.gethostname(), os.uname())",
        "EPERM",
    ),
    # Keys.
    "key of the session": Channel(
        "print(tried(add_key, SESSION))",
        "print(tried(keyctl, 11, SESSION, 0, 0))",
        filtered="EPERM",
    ),
    "key of the user": Channel(
        "print(tried(add_key, USER))",
        "print(tried(keyctl, 11, USER, 0, 0), tried(keyctl, 11, USER_SESSION, 0, 0))",
        filtered="EPERM",
    ),
    "rights of the user's keyring": Channel(
        "print(tried(lambda: keyctl(5, USER_SESSION, 0x3f1f0000) or 'left'))",
        "buffer = ctypes.create_string_buffer(99)\n"
        "print(tried(keyctl, 6, USER_SESSION, ctypes.addressof(buffer), 99), "
        "buffer.value.split(b';')[3:4])",
        filtered="EPERM",
    ),
    "restriction of the user's keyring": Channel(
        "print(tried(lambda: keyctl(29, USER, 0, 0) or 'left'))",
        "print(tried(add_key, USER))",
        filtered="EPERM",
    ),
    "restriction of the user's session keyring": Channel(
        "print(tried(lambda: keyctl(29, USER_SESSION, 0, 0) or 'left'))",
        "print(tried(add_key, USER_SESSION))",
        filtered="EPERM",
    ),
    "group of the user's keyring": Channel(
        "print(tried(lambda: keyctl(4, USER, -1, os.getgid()) or 'left'))",
        "buffer = ctypes.create_string_buffer(99)\n"
        "print(tried(keyctl, 6, USER, ctypes.addressof(buffer), 99), buffer.value)",
        filtered="EPERM",
    ),
    "another keyring in place of the user's": Channel(
        """
def swap():
    keyctl(9, USER, USER_SESSION)
    return call(248, 217, b'keyring\\0', b'mine\\0', 0, 0, USER_SESSION) and 'left'
print(tried(swap))
""",
        """
key, buffer = ctypes.c_int(), ctypes.create_string_buffer(99)
print(tried(keyctl, 11, USER_SESSION, ctypes.addressof(key), 4),
      tried(keyctl, 6, key.value, ctypes.addressof(buffer), 99), buffer.value)
""",
        filtered="EPERM",
    ),
    "persistent key": Channel(
        "print(tried(lambda: add_key(keyctl(22, -1, SESSION))))",
        "print(tried(lambda: keyctl(11, keyctl(22, -1, SESSION), 0, 0)))",
        "left|EOPNOTSUPP",
        "EPERM",
    ),
    "keyring by name": Channel(
        "print(tried(lambda: keyctl(1, b'mine\\0') and 'left'))",
        "print(tried(lambda: (keyctl(1, b'mine\\0'), keyctl(11, SESSION, 0, 0))[1]))",
        filtered="EPERM",
    ),
    # The kernel's log.
    "log of the kernel": Channel(
        "print(tried(open, '/dev/kmsg', 'w'), tried(socket.socket(socket.AF_UNIX).connect, "
        "'/dev/log'))",
        "print(tried(open, '/dev/kmsg'))",
        "EROFS ENOENT",
    ),
    # In namespaces of its own, where a program has capabilities.
    "namespaces": Channel(
        """
outcome = tried(lambda: call(272, 97, 0x10000000 | 0x20000 | 0x8000000 | 0x40000000) or 'left')
if outcome == 'left':
    tried(socket.sethostname, 'other')
    tried(call, 165, 40, b'x\\0', b'/tmp\\0', b'tmpfs\\0', 0, 0)
    tried(open, '/tmp/file', 'w')
print(outcome)
""",
        "print(socket.gethostname())" + TREE + NET,
        "left|EPERM",
        "EPERM",
    ),
}


def sandbox(channel: Channel, policy: str | None) -> Sandbox:
    limits = Limits(wall_time=20, processes=60)
    return Sandbox(policy=policy, limits=limits, **channel.options)


def shown(sandbox: Sandbox, code: str) -> str:
    result = sandbox.run([PYTHON, "-S", "-E", "-c", PRELUDE + code])
    assert (result.stderr, result.exit_code) == (b"", 0)
    return result.stdout.decode(errors="replace")


@pytest.mark.parametrize("policy", ["default", None], ids=["filtered", "unfiltered"])
@pytest.mark.parametrize("channel", CHANNELS.values(), ids=CHANNELS)
def test_run_sees_nothing_of_the_one_before(channel: Channel, policy: str | None) -> None:
    terminals = any(mount.pts for mount in channel.options.get("mounts", ()))
    if terminals and not detect().privileged:
        pytest.skip("needs uid 0")  # a plain user's sandbox has no terminals
    with sandbox(channel, policy) as one, sandbox(channel, policy) as other:
        for _ in range(2):
            outcome = " ".join(shown(one, channel.leave).split())
            shown(other, "pass")
            expected = channel.filtered if policy and channel.filtered else channel.outcome
            assert outcome in expected.split("|")
            assert shown(one, channel.look) == shown(other, channel.look)


@pytest.mark.parametrize("channel", CHANNELS.values(), ids=CHANNELS)
def test_run_after_a_reset_sees_nothing_of_the_submission_before(channel: Channel) -> None:
    """Files stay between its runs; a reset leaves no more of them than a run leaves else."""
    if channel.options.get("mounts") and not detect().privileged:
        pytest.skip("needs uid 0")  # a plain user's sandbox has no terminals
    kept = channel._replace(options=channel.options | {"fresh": "submission"})
    with sandbox(kept, None) as one, sandbox(kept, None) as other:
        for _ in range(2):
            with contextlib.suppress(ChildError):  # it was damaged
                shown(one, channel.leave)
                shown(one, "open('/tmp/kept', 'w')")
            shown(other, "pass")
            shown(other, "pass")
            for box in (one, other):
                box.reset()
            assert shown(one, channel.look) == shown(other, channel.look)
            for box in (one, other):
                box.reset()  # to look may be to leave something
