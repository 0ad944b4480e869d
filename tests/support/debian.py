"""A Debian base image, made by mmdebstrap from the sources that this machine's own apt uses.

Made once, then kept outside the checkout (`cache_folder`). Proxies, credentials and authorities of
the machine's apt go into the image, so that `RUN apt-get install` reaches what the host reaches.
"""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.support import hosts
from tests.support.layout import write_layout

APT = Path("/etc/apt")
CARRIED = re.compile(r"^Acquire::(https?::|ftp::|Check-|Retries|ForceIPv)", re.IGNORECASE)
ENVIRONMENT = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
VERSION = 2


def cache_folder() -> Path:
    """Where things that are dear to make stay between runs of the suite."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(os.environ.get("IMG_TEST_CACHE") or Path(base) / "img-tests")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def debian_layout() -> Path:
    """The layout of the base image, made where it is not there yet; tagged `latest`."""
    layout = cache_folder() / f"debian-{VERSION}"
    with (cache_folder() / "debian.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (layout / "index.json").exists():
            hosts.remove_tree(layout)
            archive = cache_folder() / "debian.tar"
            codename = _release()["VERSION_CODENAME"]
            _mmdebstrap(archive, codename, dict.fromkeys(_sources(codename)))
            write_layout(layout, [archive.read_bytes()], {"Env": ENVIRONMENT, "Cmd": ["bash"]})
            archive.unlink()
    return layout


def write_root(folder: Path, suite: str, packages: Iterable[str]) -> None:
    """Makes the root of another suite as a folder, with these packages, out of the same archive; as root.

    Raises:
        RuntimeError: mmdebstrap failed; what it began is removed.
    """
    codename = _release()["VERSION_CODENAME"]
    # The suite's updates may not exist; what is wanted is a release as it came out.
    lines = [line for line in _sources(codename) if f" {codename} " in line]
    sources = dict.fromkeys(line.replace(f" {codename} ", f" {suite} ") for line in lines)
    try:
        _mmdebstrap(folder, suite, sources, f"--include={','.join(packages)}")
    except RuntimeError:
        hosts.remove_tree(folder)
        raise


def _mmdebstrap(target: Path, codename: str, lines: Iterable[str], *more: str) -> None:
    sources = "\n".join(lines)
    command = ["mmdebstrap", "--variant=apt", "--quiet"]
    command += [f"--mode={'root' if hosts.is_root() else 'unshare'}"]
    command += [f"--aptopt={option}" for option in _options()]
    command += ["--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/doc/*"]
    command += ["--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=path-exclude=/usr/share/info/*"]
    if any((APT / "auth.conf.d").glob("*.conf")):
        command += [f'--setup-hook=cp -r {APT}/auth.conf.d "$1/etc/apt/"']
    authorities = Path("/etc/ssl/certs/ca-certificates.crt")
    if "https://" in sources and authorities.exists():
        inner = f'"$1"{shlex.quote(str(authorities))}'
        command += [f'--customize-hook=mkdir -p "$1/etc/ssl/certs" && cp {authorities} {inner}']
    command += [*more, codename, str(target), "-"]
    done = subprocess.run(command, input=sources, capture_output=True, text=True, check=False)
    if done.returncode:
        if target.is_file():
            target.unlink()
        raise RuntimeError(f"{shlex.join(command)}\n{sources}\n{done.stderr}")


def _release() -> dict[str, str]:
    lines = Path("/etc/os-release").read_text().splitlines()
    pairs = (line.split("=", 1) for line in lines if "=" in line)
    return {key: value.strip('"') for key, value in pairs}


def _options() -> Iterator[str]:
    """The machine's ways to reach its mirror, as apt itself prints them."""
    dump = subprocess.run(["apt-config", "dump"], check=True, capture_output=True, text=True).stdout
    for line in dump.splitlines():
        if CARRIED.match(line) and not line.endswith(' "";'):
            yield line


def _sources(codename: str) -> Iterator[str]:
    """Every source line of the machine that belongs to the distribution itself."""
    suites = {codename, f"{codename}-updates", f"{codename}-security"}
    for path in [APT / "sources.list", *sorted((APT / "sources.list.d").glob("*"))]:
        if path.suffix == ".sources":
            for stanza in re.split(r"\n\s*\n", path.read_text()):
                yield from _stanza(stanza, suites)
        elif path.suffix == ".list" and path.exists():
            for line in path.read_text().splitlines():
                words = re.sub(r"\[.*?\]", "", line).split()
                if words[:1] == ["deb"] and words[2] in suites and "main" in words:
                    yield line.strip()


def _stanza(stanza: str, suites: set[str]) -> Iterator[str]:
    fields: dict[str, str] = {}
    for line in stanza.splitlines():
        if ":" in line and not line.startswith((" ", "\t", "#")):
            key, _, value = line.partition(":")
            fields[key.strip().lower()] = value.strip()
    if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes") == "no":
        return
    components = fields.get("components", "").split()
    signed = fields.get("signed-by", "")
    option = f"[signed-by={signed}] " if signed.startswith("/") else ""
    if "main" in components:
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                if suite in suites:
                    yield f"deb {option}{uri} {suite} main"
