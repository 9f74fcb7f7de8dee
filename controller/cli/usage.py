"""What the user must change, as an error and an exit code.

Apart from `main`, which is another module when it is run as a script (`python -m controller.cli.main`).
"""

from typing import Final

USAGE_EXIT: Final = 2


class UsageError(Exception):
    """Something that the user must change; the message says what."""
