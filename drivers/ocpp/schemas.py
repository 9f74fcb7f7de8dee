"""The JSON schemas of OCPP, from the `ocpp` package: what we send is held against them before it leaves."""

import json
from decimal import Decimal
from typing import Any, Final

from ocpp.messages import get_validator  # type: ignore[import-untyped]  # the package carries no types

from drivers.ocpp.frames import Payload

_CALL: Final = 2
# Their schemas hold "multipleOf: 0.1", which binary floats cannot satisfy: both sides are read as decimals.
_DECIMAL: Final = frozenset({("1.6", "SetChargingProfile"), ("1.6", "RemoteStartTransaction")})


class NotSchemaValid(Exception):  # noqa: N818 - reads as what is the case
    """A payload does not follow the schema of its action."""


def check_call(version: str, action: str, payload: Payload) -> None:
    """Hold the payload of a CALL of ours against the schema. Raises NotSchemaValid.

    `version` is "1.6" or "2.0.1".
    """
    exact = (version, action) in _DECIMAL
    parse_float: Any = Decimal if exact else float
    try:
        validator = get_validator(_CALL, action, version, parse_float)
    except OSError as missing:
        raise NotSchemaValid(f"OCPP {version} knows no {action}") from missing
    instance = json.loads(json.dumps(payload), parse_float=Decimal) if exact else payload
    for wrong in validator.iter_errors(instance):
        raise NotSchemaValid(f"{action}: {wrong.json_path}: {wrong.message}")
