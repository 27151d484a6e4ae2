"""Run by setup_env.sh in .venv, before pip installs: mends what a stopped pip has left, and says what will be fetched.

    python scripts/before_install.py EXTRA[,EXTRA] PYTHON

PYTHON is the one that .venv was made by; whether it has a torch that would do is said, too.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement  # what pip itself decides by

LARGE = ("torch", "torchvision")
_VERSIONS = f"""if True:
    import sys
    from importlib import metadata
    for name in {LARGE}:
        try:
            print(name, metadata.version(name))
        except metadata.PackageNotFoundError:
            pass
"""


def main(extras: str, python: str) -> None:
    mend(sysconfig.get_path("purelib"))
    wanted = list(requirements(Path("pyproject.toml").read_text(encoding="utf-8"), extras.split(",")))
    print(f"Installing mvlib[{extras}] into .venv, once", flush=True)
    if satisfied(wanted, versions()):
        print(f"  torch {versions()['torch']} is there already", flush=True)
        return
    print("\n".join(f"  {line}" for line in announcement(wanted, has_gpu(), outside(python), python)), flush=True)


def mend(folder: str) -> None:
    """Remove what makes pip take a package for installed that was not written to its end: pip writes RECORD last."""
    for path in map(Path, glob.glob(f"{glob.escape(folder)}/*.dist-info")):
        if not (path / "RECORD").exists():
            print(f"{path.name[:-len('.dist-info')]} was not installed to its end: it is installed again")
            shutil.rmtree(path)
    for path in map(Path, glob.glob(f"{glob.escape(folder)}/~*")):  # what pip had set aside
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def requirements(text: str, extras: Sequence[str]) -> Iterator[Requirement]:
    """What pyproject.toml wants of torch and torchvision, with extras and those that they name. (Python 3.10 has no
    parser for TOML.)"""
    lists = dict(re.findall(r'^([\w-]+) = (\[.*?\])[^\]"\n]*$', text, re.M | re.S))
    seen, waiting = set(), ["dependencies", *extras]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for line in re.findall(r'"([^"]+)"', re.sub(r"\s#.*", "", lists.get(name, ""))):
            requirement = Requirement(line)
            if requirement.name in LARGE:
                yield requirement
            elif requirement.name == "mvlib":
                waiting += requirement.extras


def satisfied(wanted: Sequence[Requirement], have: Mapping[str, str]) -> bool:
    return set(LARGE) <= set(have) and all(need.specifier.contains(have[need.name], prereleases=True)
                                           for need in wanted)


def versions() -> dict[str, str]:
    """Of torch and torchvision, as far as .venv has them."""
    found = {}
    for name in LARGE:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
    return found


def outside(python: str) -> dict[str, str]:
    """The same of the Python that .venv was made by; of the one below, where that is in an environment itself."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    try:
        base = subprocess.run([python, "-c", "import sys; print(getattr(sys, '_base_executable', sys.executable))"],
                              capture_output=True, text=True, check=True, env=environment).stdout.strip()
        lines = subprocess.run([base, "-c", _VERSIONS], capture_output=True, text=True, check=True,
                               env=environment, cwd="/").stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return {}
    return dict(line.split() for line in lines)


def has_gpu() -> bool:
    return bool(glob.glob("/dev/nvidia[0-9]*") or os.path.exists("/dev/dxg") or shutil.which("nvidia-smi"))


def announcement(wanted: Sequence[Requirement], gpu: bool, have: Mapping[str, str], python: str,
                 system: str = sys.platform) -> list[str]:
    """Lines on what will be fetched and what would be less."""
    lines = []
    if system == "linux":
        lines.append("to be fetched: torch with NVIDIA's CUDA libraries, about 6 GB on the disk; all else is small "
                     "beside it")
        if not gpu:
            lines += ["there is no NVIDIA GPU here, and torch built for CPUs takes less than 1 GB. To have it: Ctrl-C,",
                      "then in .venv (source .venv/bin/activate) the command that https://pytorch.org/get-started/locally/",
                      "gives for Pip and CPU, then this script again, which finds it"]
    else:
        lines.append("to be fetched: torch, about 0.5 GB on the disk, and what is smaller")
    if satisfied(wanted, have):
        lines.append(f"torch {have['torch']} of {python} would do: with MVLIB_SYSTEM_TORCH=1 in the environment it is "
                     f"used, and not fetched")
    lines.append("an installation that is stopped goes on when the script is run again")
    return lines


if __name__ == "__main__":
    main(*sys.argv[1:])
