"""Pin what pyproject.toml asks for, with hashes, for every supported Python.

    make lock                                   keeps the pins that still fit
    make lock ARGS=--upgrade                    takes the newest of everything
    make lock ARGS="--upgrade-package pydantic"

lock.txt is everything (checks and tests too), runtime.txt what a gateway runs, build.txt what makes the wheel; the last
two take their versions from the first. The resolver is uv, installed from the package index into a throw-away venv.
"""

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HERE = Path("requirements")
COMPILE = (
    "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes",
    "--custom-compile-command", "make lock",
)  # fmt: skip
ALL, SAME = str(HERE / "lock.txt"), ("--constraint", str(HERE / "lock.txt"))


def main() -> int:
    """Write the three files; the command line's options go to the resolver."""
    options = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, symlinks=True, with_pip=True)
        run(folder, "python", "-m", "pip", "install", "-qq", "--disable-pip-version-check", "uv")
        run(folder, "uv", *COMPILE, *options, "pyproject.toml", "--group", "dev", "--group", "build", "-o", ALL)
        run(folder, "uv", *COMPILE, "pyproject.toml", *SAME, "-o", str(HERE / "runtime.txt"))
        run(folder, "uv", *COMPILE, "--group", "build", *SAME, "-o", str(HERE / "build.txt"))
    return 0


def run(folder: str, program: str, *arguments: str) -> None:
    """Run a program of the venv in `folder`, at the top of the project. Raises CalledProcessError."""
    subprocess.run([str(Path(folder, "bin", program)), *arguments], check=True, cwd=ROOT)


if __name__ == "__main__":
    sys.exit(main())
