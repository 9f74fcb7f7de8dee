"""OCPP-J framing without I/O: text in, a message or a typed problem out, and back.

Knows the three RPC messages of OCPP-J (CALL, CALLRESULT, CALLERROR), in 1.6 and 2.0.1 the same. Does not care what
the actions mean, nor which side of the link it stands on.

Nothing a peer can write raises out of `parse`: what would upset a JSON parser (nesting, giant integers, NaN, lone
surrogates) is a `Problem` like any other.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NoReturn, TypeGuard

Payload = dict[str, Any]

MAX_DEPTH: Final = 32
MAX_INTEGER_DIGITS: Final = 20
# OCPP-J allows 36 characters. Some stations prefix their UUID ("urn:uuid:..." is 45): refusing their transactions over
# that would lose billing data, so up to 64 is taken. Beyond, the frame is junk: an id is echoed and remembered.
MAX_ID: Final = 64
MAX_ACTION: Final = 64

_CALL, _RESULT, _ERROR = 2, 3, 4
_CALL_PARTS, _RESULT_PARTS, _ERROR_PARTS = 4, 3, (3, 5)

# Possessive quantifiers: a hostile string of quotes and backslashes must not cost more than one pass.
_STRINGS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_HEAD = re.compile(rf'\s*\[\s*([234])\s*,\s*"([^"\\\x00-\x1f]{{1,{MAX_ID}}})"')
_SURROGATE = re.compile(r"\\u[dD][89abAB]|\\u[dD][c-fC-F]|[\ud800-\udfff]")


class Fault(StrEnum):
    """Why a CALL is not answered with a result; each version has its own wire code for it."""

    NOT_IMPLEMENTED = "not_implemented"
    NOT_SUPPORTED = "not_supported"
    INTERNAL = "internal"
    FORMAT = "format"
    """The payload is no JSON object, or the text is no JSON."""
    FRAME = "frame"
    """The array around the payload is not an RPC message."""
    MESSAGE_TYPE = "message_type"
    TYPE = "type"
    PROPERTY = "property"
    OCCURRENCE = "occurrence"


# OCPP-J 1.6 §4.2.3. "Formation" and "Occurence" are the specification's own spellings, kept by its errata (§5.2).
CODES_V16: Final[Mapping[Fault, str]] = {
    Fault.NOT_IMPLEMENTED: "NotImplemented",
    Fault.NOT_SUPPORTED: "NotSupported",
    Fault.INTERNAL: "InternalError",
    Fault.FORMAT: "FormationViolation",
    Fault.FRAME: "FormationViolation",
    Fault.MESSAGE_TYPE: "ProtocolError",
    Fault.TYPE: "TypeConstraintViolation",
    Fault.PROPERTY: "PropertyConstraintViolation",
    Fault.OCCURRENCE: "OccurenceConstraintViolation",
}
# OCPP 2.0.1 part 4 §4.3.
CODES_V2: Final[Mapping[Fault, str]] = {
    Fault.NOT_IMPLEMENTED: "NotImplemented",
    Fault.NOT_SUPPORTED: "NotSupported",
    Fault.INTERNAL: "InternalError",
    Fault.FORMAT: "FormatViolation",
    Fault.FRAME: "RpcFrameworkError",
    Fault.MESSAGE_TYPE: "MessageTypeNotSupported",
    Fault.TYPE: "TypeConstraintViolation",
    Fault.PROPERTY: "PropertyConstraintViolation",
    Fault.OCCURRENCE: "OccurrenceConstraintViolation",
}


@dataclass(frozen=True, slots=True)
class Call:
    """A request for an action."""

    id: str
    action: str
    payload: Payload


@dataclass(frozen=True, slots=True)
class CallResult:
    """The answer to a CALL."""

    id: str
    payload: Payload


@dataclass(frozen=True, slots=True)
class CallError:
    """The refusal of a CALL. `code` is as it stands on the wire."""

    id: str
    code: str
    text: str = ""
    details: Payload = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Problem:
    """A frame that is none of the three.

    With `call_id` it was a request and is to be answered with a CALLERROR; with `answer_id` it was meant as the answer
    to a request of ours, and is no success; with neither it is counted and ignored: an answer to nobody in particular
    would only feed a loop of errors.
    """

    fault: Fault
    text: str
    call_id: str | None = None
    answer_id: str | None = None


Message = Call | CallResult | CallError


def encode(message: Message) -> str:
    """Return the frame's text. Raises ValueError when the payload holds NaN or Infinity."""
    parts: list[object]
    match message:
        case Call(id=id_, action=action, payload=payload):
            parts = [_CALL, id_, action, payload]
        case CallResult(id=id_, payload=payload):
            parts = [_RESULT, id_, payload]
        case CallError(id=id_, code=code, text=text, details=details):
            parts = [_ERROR, id_, code, text[:255], details]
    return json.dumps(parts, separators=(",", ":"), allow_nan=False)


def parse(text: str) -> Message | Problem:
    """Return what a frame says. Raises nothing, whatever the text is."""
    upset = _upsetting(text)
    if upset is not None:
        return _unreadable(text, upset)
    try:
        frame = _DECODER.decode(text)
    except (ValueError, RecursionError) as wrong:
        return _unreadable(text, str(wrong))
    return _message(frame)


def _upsetting(text: str) -> str | None:
    """Return what in this text a JSON parser, or what comes after it, cannot be trusted with."""
    if ("\\u" in text or not text.isascii()) and _has_lone_surrogate(text):
        return "lone surrogate"
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        return f"nested deeper than {MAX_DEPTH}"
    return None


def _has_lone_surrogate(text: str) -> bool:
    # An escaped pair is one character; whatever is left after taking the pairs away is alone.
    paired = re.sub(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}", "", text)
    return _SURROGATE.search(paired) is not None


def _depth(text: str) -> int:
    deepest = depth = 0
    for sign in re.findall(r"[\[\]{}]", _STRINGS.sub("", text)):
        depth += 1 if sign in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError("a number too large for a float")
    return value


def _short(digits: str) -> int:
    if len(digits.removeprefix("-")) > MAX_INTEGER_DIGITS:
        raise ValueError(f"integer of more than {MAX_INTEGER_DIGITS} digits")
    return int(digits)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER: Final = json.JSONDecoder(parse_float=_finite, parse_int=_short, parse_constant=_refuse_constant)


def _unreadable(text: str, why: str) -> Problem:
    """Return the problem of a text that cannot be parsed, with the id if its head can be read all the same."""
    head = _HEAD.match(text)
    if head is None or _SURROGATE.search(head[2]):
        return Problem(Fault.FORMAT, why)
    if int(head[1]) == _CALL:
        return Problem(Fault.FORMAT, why, call_id=head[2])
    return Problem(Fault.FORMAT, why, answer_id=head[2])


def _message(frame: object) -> Message | Problem:
    if not isinstance(frame, list) or not frame:
        return Problem(Fault.FRAME, "not a JSON array with a message type")
    kind = frame[0]
    id_ = frame[1] if len(frame) > 1 and _is_id(frame[1]) else None
    # A type test by identity: JSON's true is Python's 1, and 2.0 equals 2.
    if type(kind) is not int or kind not in (_CALL, _RESULT, _ERROR):
        return Problem(Fault.MESSAGE_TYPE, "unknown message type")
    if id_ is None:
        return Problem(Fault.FRAME, f"no message id of 1 to {MAX_ID} characters")
    if kind == _CALL:
        return _call(id_, frame)
    return _result(id_, frame) if kind == _RESULT else _error(id_, frame)


def _is_id(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= MAX_ID


def _call(id_: str, frame: list[Any]) -> Call | Problem:
    if len(frame) != _CALL_PARTS:
        return Problem(Fault.FRAME, f"a CALL has {_CALL_PARTS} elements, not {len(frame)}", call_id=id_)
    action, payload = frame[2], frame[3]
    if not isinstance(action, str) or not 0 < len(action) <= MAX_ACTION:
        return Problem(Fault.FRAME, "the action is not a name", call_id=id_)
    if not isinstance(payload, dict):
        return Problem(Fault.FORMAT, "the payload is not an object", call_id=id_)
    return Call(id_, action, payload)


def _result(id_: str, frame: list[Any]) -> CallResult | Problem:
    if len(frame) != _RESULT_PARTS or not isinstance(frame[2], dict):
        return Problem(Fault.FRAME, "a CALLRESULT without an object", answer_id=id_)
    return CallResult(id_, frame[2])


def _error(id_: str, frame: list[Any]) -> CallError | Problem:
    # Stations leave the description and the details out; the code is what counts.
    fewest, most = _ERROR_PARTS
    if not fewest <= len(frame) <= most or not isinstance(frame[2], str):
        return Problem(Fault.FRAME, "a CALLERROR without a code", answer_id=id_)
    text = frame[3] if len(frame) > fewest and isinstance(frame[3], str) else ""
    details = frame[4] if len(frame) == most and isinstance(frame[4], dict) else {}
    return CallError(id_, frame[2], text, details)
