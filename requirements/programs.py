"""Install the programs of programs.txt that are missing, where that is possible: as root, through apt-get.

Elsewhere nothing happens here: the tests that need a missing program name it at the end of their run.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

# Debian keeps daemons in sbin, which is not on everybody's PATH.
PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
LISTED = (line.split() for line in (Path(__file__).parent / "programs.txt").read_text(encoding="utf-8").splitlines())
PACKAGES = {words[0]: words[1] for words in LISTED if words and not words[0].startswith("#")}


def main() -> int:
    """Install what is missing and return 0, also where that failed: the tests say what it means for them."""
    missing = [package for program, package in PACKAGES.items() if shutil.which(program, path=PATH) is None]
    if not missing or os.geteuid() != 0 or shutil.which("apt-get", path=PATH) is None:
        return 0
    sys.stderr.write(f"Installing {', '.join(missing)} (some tests need it).\n")
    if not apt_get("install", *missing):
        # The package lists may be absent or old.
        apt_get("update")
        apt_get("install", *missing)
    return 0


def apt_get(command: str, *packages: str) -> bool:
    """Run apt-get without questions; tell whether it went well."""
    silent = {**os.environ, "PATH": PATH, "DEBIAN_FRONTEND": "noninteractive"}
    options = ("-qq", "-y", "--no-install-recommends") if packages else ("-qq",)
    done = subprocess.run(
        ["apt-get", command, *options, *packages], env=silent, check=False, capture_output=True, text=True
    )
    if done.returncode:
        sys.stderr.write(done.stderr)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
