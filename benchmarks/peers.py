"""The peers' virtual environment: made once, kept in the user's cache folder, used again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from .peer_requirements import PEER_REQUIREMENTS


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "popoto-benchmarks" / f"peers-py{sys.version_info.major}.{sys.version_info.minor}"


def python_of(folder: Path) -> Path:
    return folder / "bin" / "python"


def peers_python(given: str | None) -> Path:
    """Return the interpreter of the peers: of the given environment, or of the cached one, which is made if
    need be.

    Raises: FileNotFoundError: the given folder holds no interpreter. CalledProcessError: the installation
    failed.
    """
    if given:
        python = python_of(Path(given))
        if not python.exists():
            raise FileNotFoundError(f"--peers-venv {given}: expected a virtual environment, found no {python}.")
        return python
    folder = cache_folder()
    stamp = folder / "requirements.txt"
    wanted = "\n".join(PEER_REQUIREMENTS) + "\n"
    if not (stamp.exists() and stamp.read_text("utf-8") == wanted):
        print(f"Installing {' '.join(PEER_REQUIREMENTS)} into {folder} (once) ...", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(python_of(folder)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *PEER_REQUIREMENTS], check=True, stdout=sys.stderr)
        stamp.write_text(wanted, "utf-8")
    return python_of(folder)
