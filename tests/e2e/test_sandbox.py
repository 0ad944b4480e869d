"""Containers for real: a busybox root, run as root, as an ordinary user with a range, and with one id.

A process can enter its namespace once and before it has threads, so that every test is a program of its
own: `drive` runs a few lines after `PRELUDE` in a fresh interpreter and gives what they `emit`.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.orphans import Orphans

BUSYBOX = shutil.which("busybox")
APPLETS = "cat chown env false grep hostname id ip ls mkdir mknod mount ps readlink rm sh sleep stat true wc"

PRELUDE = """
import json, os, shutil, sys, tempfile, threading, time
from pathlib import Path
from img import _core
from img.errors import ImgError
from img.executor import Mount, RunSpec, SandboxExecutor, prepare_stub
from img.executor import to_oci
namespace = _core.enter_namespace(single={single})
base = tempfile.mkdtemp(dir={folder!r})
# A layer belongs to ids of the namespace: what the real root owns cannot be copied up from in it.
lower = shutil.copytree({rootfs!r}, f"{{base}}/lower", symlinks=True)
def new_root(name="r"):
    for part in ("", "/upper", "/work", "/root", "/stub", "/scratch"):
        os.mkdir(f"{{base}}/{{name}}{{part}}")
    prepare_stub(f"{{base}}/{{name}}/stub")
    _core.mount_overlay(f"{{base}}/{{name}}/root", lowers=[f"{{base}}/{{name}}/stub", lower],
                        upper=f"{{base}}/{{name}}/upper", work=f"{{base}}/{{name}}/work")
    return f"{{base}}/{{name}}/root"
root = new_root()
upper = root.removesuffix("root") + "upper"
executor = SandboxExecutor(f"{{base}}/r/scratch", emulate_owners=namespace.kind == "single")
def spec(*args, **fields):
    fields.setdefault("env", (("PATH", "/bin"),))
    return RunSpec(root=fields.pop("root", root), args=args, **fields)
def run(*args, **fields):
    with tempfile.TemporaryFile() as output:
        with executor.start(spec(*args, **fields), output=output.fileno()) as container:
            code = container.wait()
        output.seek(0)
        return code, output.read().decode()
def sh(text, **fields):
    return run("sh", "-c", text, **fields)
def emit(*values):
    print(json.dumps(values), flush=True)
"""

Drive = Callable[[str], Any]


@pytest.fixture(scope="session")
def rootfs() -> Iterator[str]:
    """A root file system of busybox, readable by everyone."""
    if BUSYBOX is None:
        pytest.skip("busybox is not installed")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        for name in ("bin", "etc", "root", "tmp"):
            os.mkdir(f"{folder}/{name}")
        os.chmod(f"{folder}/tmp", 0o1777)
        shutil.copy(BUSYBOX, f"{folder}/bin/busybox")
        for applet in APPLETS.split():
            os.symlink("busybox", f"{folder}/bin/{applet}")
        Path(folder, "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nweb:x:33:33::/:/bin/sh\n")
        yield folder


def user_with_range() -> str | None:
    """Gives an ordinary user of this machine who has a range of ids."""
    names = {line.split(":")[0] for line in Path("/etc/subuid").read_text().splitlines()}
    for name in sorted(names - {"root"}):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    return None


def command_prefix(mode: str) -> list[str]:
    """Gives what runs a program as the mode's user; skips where this machine has none."""
    if os.geteuid() != 0:
        if mode == "root":
            pytest.skip("not root")
        return []
    if mode == "root":
        return []
    prefix = ["setpriv", "--reuid=65533", "--regid=65533", "--clear-groups"]
    if mode == "mapped":
        name = user_with_range()
        if name is None or not shutil.which("newuidmap"):
            pytest.skip("no ordinary user with a range of ids")
        prefix = ["setpriv", f"--reuid={name}", f"--regid={name}", "--init-groups"]
    if subprocess.run([*prefix, sys.executable, "-c", ""], capture_output=True, check=False).returncode:
        pytest.skip("other users cannot run the interpreter of this checkout; the suite runs as one of them")
    return prefix


def program(mode: str, rootfs: str, body: str, folder: str) -> list[str]:
    text = PRELUDE.format(single=mode == "single", rootfs=rootfs, folder=folder) + body
    return [*command_prefix(mode), sys.executable, "-c", text]


@pytest.fixture
def folder() -> Iterator[str]:
    """A folder that every user may write to."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as path:
        os.chmod(path, 0o1777)
        yield path


@pytest.fixture(params=["root", "mapped", "single"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def drive(mode: str, rootfs: str, folder: str) -> Drive:
    """Runs a body and gives the values of its last `emit`."""

    def go(body: str) -> Any:
        command = program(mode, rootfs, body, folder)
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return go


def test_the_namespace_is_what_was_asked_for(drive: Drive, mode: str) -> None:
    kind, same, uid = drive(
        "emit(namespace.kind, _core.enter_namespace().kind == namespace.kind, os.getuid())"
    )
    assert (kind, same, uid) == (mode, True, 0)


def test_exit_codes_come_through(drive: Drive) -> None:
    body = "emit(run('true')[0], run('false')[0], sh('exit 7')[0], sh('kill -9 $$')[0], sh('kill $$')[0])"
    assert drive(body) == [0, 1, 7, 137, 143]


def test_a_missing_program_gives_127_and_one_not_executable_126(drive: Drive) -> None:
    missing, forbidden = drive("emit(run('nope'), run('/etc/passwd'))")
    assert missing == [127, "nope: not found\n"]
    assert forbidden == [126, "/etc/passwd: Permission denied\n"]


def test_a_missing_working_directory_is_made(drive: Drive) -> None:
    code, text = drive("emit(*run('sh', '-c', 'pwd; stat -c %a /no', cwd='/no/where'))")
    assert (code, text) == (0, "/no/where\n755\n")


def test_a_working_directory_that_is_a_file_is_an_error_with_its_name(drive: Drive) -> None:
    body = """
try:
    run('true', cwd='/etc/passwd')
except ImgError as error:
    emit(type(error).__name__, str(error))
"""
    kind, text = drive(body)
    assert kind == "SandboxError" and "/etc/passwd" in text


def test_the_container_sees_its_own_processes_and_not_the_builders_arguments(drive: Drive) -> None:
    pids, cmdline, environ = drive(
        "emit(sh('echo /proc/[0-9]*')[1].split(), sh('cat /proc/1/cmdline')[1].strip('\\0'),"
        " sh('cat /proc/1/environ')[1].strip('\\0'))"
    )
    assert len(pids) == 2 and cmdline == "img-sandbox" and "PATH" not in environ


def test_the_environment_and_the_descriptors_are_exactly_the_specs(drive: Drive) -> None:
    env, descriptors = drive(
        "os.environ['LEAK'] = 'x'; leak = os.open('/', os.O_RDONLY); os.set_inheritable(leak, True)\n"
        "emit(run('env', env=(('PATH', '/bin'), ('A', 'b c')))[1].split('\\n'),"
        " run('ls', '/proc/self/fd')[1].split())"
    )
    assert env == ["PATH=/bin", "A=b c", ""]
    assert descriptors == ["0", "1", "2", "3"]  # 3 is the folder that ls reads


def test_bytes_that_are_not_text_reach_the_program(drive: Drive) -> None:
    output = drive(
        "env = (('PATH', '/bin'), ('V', '\\udcc3'))\n"
        "emit(run('sh', '-c', 'printf %s \"$0$V\" | wc -c', '\\udcff', env=env))"
    )
    assert output == [[0, "2\n"]]


def test_resolv_conf_and_hosts_are_there_and_nothing_enters_the_layer(drive: Drive) -> None:
    hosts, lines, left = drive(
        "emit(sh('cat /etc/hosts')[1], sh('wc -l < /etc/resolv.conf')[0],"
        " [str(p) for p in Path(upper).rglob('*')])"
    )
    assert "localhost buildkitsandbox" in hosts and lines == 0 and left == []


def test_a_mount_point_that_the_image_lacks_is_gone_afterwards(drive: Drive) -> None:
    body = """
os.mkdir(base + '/data'); Path(base, 'data/file').write_text('hello')
mount = Mount(destination='/tmp/deep/er', type='bind', source=base + '/data', options=('rbind', 'ro'))
before = os.stat(root + '/tmp').st_mtime_ns
read = sh('cat /tmp/deep/er/file; echo x > /tmp/deep/er/new', mounts=(mount,))
emit(read, os.listdir(root + '/tmp'), os.stat(root + '/tmp').st_mtime_ns == before)
"""
    (code, text), left, same = drive(body)
    assert code == 1 and text.startswith("hello") and "Read-only" in text
    assert left == [] and same


def test_a_symlink_of_the_image_leads_no_mount_outside(drive: Drive) -> None:
    body = """
os.symlink(base + '/outside', root + '/tmp/link'); os.mkdir(base + '/outside')
mount = Mount(destination='/tmp/link/x', type='tmpfs', source='tmpfs')
emit(run('true', mounts=(mount,))[0], os.listdir(base + '/outside'))
"""
    assert drive(body) == [0, []]


def test_the_hosts_knobs_are_masked_or_read_only(drive: Drive) -> None:
    timers, sysctl, sys, keys = drive(
        "emit(sh('wc -c < /proc/timer_list')[1], sh('echo 1 > /proc/sys/kernel/panic')[0],"
        " sh('mkdir /sys/x')[0], sh('wc -c < /proc/keys')[1])"
    )
    assert timers.strip() == "0" and sysctl != 0 and sys != 0 and keys.strip() == "0"


def test_mounting_and_new_namespaces_are_refused_and_insecure_lifts_it(drive: Drive, mode: str) -> None:
    refused, lifted = drive(
        "emit(sh('mount -t tmpfs x /tmp')[0], sh('mount -t tmpfs x /tmp', security='insecure')[0])"
    )
    assert refused != 0 and lifted == 0


def test_capabilities_are_the_default_ones_and_an_ordinary_user_has_none(drive: Drive, mode: str) -> None:
    body = """
status = 'grep -E "Cap(Eff|Bnd|Amb)|^Seccomp:|NoNewPrivs" /proc/self/status'
emit(sh(status)[1].split(), sh('id; ' + status, uid=33, gid=34, additional_gids=(5, 7))[1].split())
"""
    root, user = drive(body)
    assert (
        root[1:10:2] == ["00000000a80425fb", "00000000a80425fb", "0" * 16, "0", "2"]
        or root[1] == "00000000a80425fb"
    )
    if mode != "single":
        assert user[0].startswith("uid=33") and "groups=5,7" in user[2]
        assert user[4] == "0" * 16


def test_with_one_id_changes_of_owner_report_success(mode: str, drive: Drive) -> None:
    owner, identity, device = drive(
        "emit(sh('chown 33:33 /tmp && stat -c %u:%g /tmp'), sh('id -u', uid=33, gid=33),"
        " sh('mknod /tmp/n c 1 3')[0])"
    )
    assert owner == [0, "0:0\n" if mode == "single" else "33:33\n"]
    assert identity == [0, "0\n" if mode == "single" else "33\n"]
    assert (device == 0) == (mode != "mapped")  # real, refused by the kernel, or faked


def test_without_a_network_there_is_a_loopback_interface_alone(drive: Drive) -> None:
    code, text = drive("emit(*sh('ip -o link', network='none'))")
    assert code == 0 and text.count("\n") == 1 and "LOOPBACK,UP" in text


def test_what_a_program_leaves_behind_is_ended_with_it(drive: Drive) -> None:
    body = """
mine = str(10**6 + os.getpid())
start = time.monotonic(); sh(f'sleep {mine} & sleep {mine}.5 &'); seconds = time.monotonic() - start
def command(process):
    try:
        return (process / "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""  # it ended meanwhile: somebody else's
emit(seconds, [c for c in map(command, Path("/proc").glob("[0-9]*")) if c.startswith(f"sleep\\0{mine}")])
"""
    seconds, left = drive(body)
    assert seconds < 60 and left == []


def test_kill_all_ends_a_running_container_and_later_ones(drive: Drive) -> None:
    body = """
codes = []
thread = threading.Thread(target=lambda: codes.append(run('sleep', '1000')[0]))
thread.start()
while not executor._running: time.sleep(0.01)
executor.kill_all(); thread.join(60)
emit(codes, run('sleep', '1000')[0])
"""
    assert drive(body) == [[137], 137]


def test_a_dropped_container_is_killed(drive: Drive) -> None:
    body = """
null = os.open('/dev/null', os.O_WRONLY)
oci = to_oci(spec('sleep', '1000'), emulate_owners=namespace.kind == 'single')
container = _core.spawn(json.dumps(oci), output=null)
pid = container.pid; alive = os.path.exists(f'/proc/{pid}'); del container
deadline = time.monotonic() + 60  # it is dead by now, but its entry may take a moment to go
while os.path.exists(f'/proc/{pid}') and time.monotonic() < deadline: time.sleep(0.01)
emit(alive, os.path.exists(f'/proc/{pid}'))
"""
    assert drive(body) == [True, False]


def test_two_containers_run_from_two_threads(drive: Drive) -> None:
    """Each waits for the other's file: one after the other, neither would end well."""
    body = """
roots = [new_root('a'), new_root('b')]; codes = {}
meet = tempfile.mkdtemp(dir=base)
mounts = (Mount(destination='/meet', type='bind', source=meet, options=('bind', 'rw')),)
wait = 'n=0; until [ -e /meet/%d ]; do sleep 0.01; n=$((n+1)); [ $n -lt 2000 ] || exit 9; done; exit %d'
def go(number):
    script = f': > /meet/{number}; ' + wait % (3 - number, number)
    codes[number] = sh(script, root=roots[number - 1], mounts=mounts)[0]
threads = [threading.Thread(target=go, args=(number,)) for number in (1, 2)]
[t.start() for t in threads]; [t.join() for t in threads]
emit(codes[1], codes[2])
"""
    assert drive(body) == [1, 2]


def test_a_hundred_runs_leave_no_mounts_zombies_or_descriptors(drive: Drive) -> None:
    body = """
def count(): return len(os.listdir('/proc/self/fd')), len(Path('/proc/self/mounts').read_text().splitlines())
run('true'); before = count()
for _ in range(100): run('true')
def state(path):
    try: return path.read_text().rsplit(')', 1)[1].split()[:2]
    except OSError: return ['', '']
states = [state(path) for path in Path('/proc').glob('[0-9]*/stat')]
children = [line for line in states if line[1] == str(os.getpid())]
emit(before == count(), [state for state, _ in children])
"""
    same, children = drive(body)
    assert same and len(children) == 1 and "Z" not in children  # the sandbox process


def test_an_unknown_part_of_a_spec_is_refused_by_name(drive: Drive) -> None:
    body = """
null = os.open('/dev/null', os.O_WRONLY); oci = to_oci(spec('true'), emulate_owners=False); oci['hooks'] = {}
try:
    _core.spawn(json.dumps(oci), output=null)
except ImgError as error:
    emit(type(error).__name__, str(error))
"""
    kind, text = drive(body)
    assert kind == "Unsupported" and "hooks" in text


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_when_the_builder_ends_every_process_of_its_containers_ends(
    mode: str, rootfs: str, folder: str, how: signal.Signals
) -> None:
    body = """
command = spec('sh', '-c', 'sleep 9999 & echo up; exec sleep 9999')
with executor.start(command, output=sys.stdout.fileno()) as container: container.wait()
"""
    command = program(mode, rootfs, body, folder)
    with (
        Orphans() as orphans,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as builder,
    ):
        assert builder.stdout is not None
        assert builder.stdout.readline() == b"up\n"
        assert len(orphans.running("sleep 9999")) >= 3, "the builder has it in its program"
        builder.send_signal(how)
        try:
            builder.wait(60)
        finally:
            builder.kill()
        assert orphans.left() == []


def test_a_program_with_threads_cannot_enter(rootfs: str) -> None:
    text = (
        "import sys, threading, time\n"
        "from img import _core; from img.errors import SandboxError\n"
        "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
        "try: _core.enter_namespace()\n"
        "except SandboxError as error: print(error, error.how_to_fix)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=60, check=False
    )
    assert "2 threads" in done.stdout and "before" in done.stdout
