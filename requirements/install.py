"""Bring `.venv` in line with the lock files. Does nothing when nothing changed.

    python3 requirements/install.py runtime    what it takes to run laadplein
    python3 requirements/install.py dev        that, and what checks and tests take

Standard library only: this runs before anything is installed.
"""

import hashlib
import importlib.util
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LOCKS = {"runtime": ("runtime.txt", "build.txt"), "dev": ("lock.txt",)}
GIVEN_BY = {"runtime": ("runtime", "dev"), "dev": ("dev",)}  # lock.txt holds all that the other two hold


def main() -> int:
    """Install the profile that the command line names; return 0 when `.venv` is ready."""
    profile = sys.argv[1]
    if usable() and any(
        stamp(name).is_file() and stamp(name).read_text() == fingerprint(name) for name in GIVEN_BY[profile]
    ):
        return 0
    # Debian ships ensurepip in a package apart from Python, and `venv` cannot do without it.
    if importlib.util.find_spec("ensurepip") is None:
        sys.stderr.write(f"{sys.executable} has no venv module. On Debian or Ubuntu: apt-get install python3-venv\n")
        return 1
    sys.stderr.write(f"Setting up .venv ({profile}): about a minute, once.\n")
    try:
        set_up(profile)
    except subprocess.CalledProcessError:
        sys.stderr.write("Setting up .venv failed; what pip says is above. It needs to reach a package index.\n")
        return 1
    return 0


def usable() -> bool:
    """Tell whether `.venv` works, was made by this Python version, and was made here (scripts in it name its place)."""
    pip, config = VENV / "bin" / "pip", VENV / "pyvenv.cfg"
    if not ((VENV / "bin" / "python").exists() and pip.is_file() and config.is_file()):
        return False
    made_by = f"version = {sys.version_info.major}.{sys.version_info.minor}."
    return made_by in config.read_text() and f"{VENV}/bin/python" in pip.read_text()


def stamp(profile: str) -> Path:
    """Return the file that says what `.venv` was last brought in line with."""
    return VENV / f".laadplein-{profile}"


def fingerprint(profile: str) -> str:
    """Return a digest of everything that an installation depends on."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packaging = (project["project"], project["build-system"], project["tool"]["hatch"])
    digest = hashlib.sha256(repr(packaging).encode())
    for name in LOCKS[profile]:
        digest.update((ROOT / "requirements" / name).read_bytes())
    return digest.hexdigest()


def set_up(profile: str) -> None:
    """Make `.venv` if need be, and install. Raises CalledProcessError."""
    if not usable():
        venv.create(VENV, clear=True, symlinks=True, with_pip=True)
    locks = [part for name in LOCKS[profile] for part in ("--requirement", str(ROOT / "requirements" / name))]
    pip_install("--require-hashes", *locks)
    # The build backend is locked too, hence no isolated environment with a newer one.
    pip_install("--no-deps", "--no-build-isolation", "--editable", str(ROOT))
    stamp(profile).write_text(fingerprint(profile))


def pip_install(*arguments: str) -> None:
    """Run pip of `.venv`; it is quiet unless something fails. Raises CalledProcessError."""
    quiet = ("-qq", "--disable-pip-version-check", "--no-input")
    subprocess.run([str(VENV / "bin" / "python"), "-m", "pip", "install", *quiet, *arguments], check=True)


if __name__ == "__main__":
    sys.exit(main())
