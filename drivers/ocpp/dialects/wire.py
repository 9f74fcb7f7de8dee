"""Tolerant field types for received messages, shared by the dialects.

A message is refused only when it cannot be understood: fields that nobody reads are not looked at, numbers may come as
text with blanks around them, enumerations in any case (docs: peers and charger quirks 39-47).
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from controller.core.model import EvseState


class Wire(BaseModel):
    """A received object: unknown fields are ignored, nothing changes afterwards."""

    model_config = ConfigDict(extra="ignore", frozen=True)


def _text_or_empty(value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    if value is None:
        return ""
    return str(value) if isinstance(value, int | float) else value


def _stripped(value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    return value.strip() if isinstance(value, str) else value


def _whole(value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    # pydantic takes 3.0 for an int but not 3.4, and meters do say 3.4 Wh.
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return value
    return int(value) if isinstance(value, float) and abs(value) < _INT_BOUND else value


_INT_BOUND: Final = 2.0**63

Text = Annotated[str, BeforeValidator(_text_or_empty), Field(max_length=512)]
Whole = Annotated[int, BeforeValidator(_whole)]
Number = Annotated[float, BeforeValidator(_stripped)]
EvseNumber = Annotated[int, BeforeValidator(_stripped), Field(ge=0, le=10_000)]


STATES: Final[Mapping[str, EvseState]] = {
    "available": EvseState.AVAILABLE,
    "preparing": EvseState.PREPARING,
    "charging": EvseState.CHARGING,
    "suspendedev": EvseState.SUSPENDED_EV,
    "suspendedevse": EvseState.SUSPENDED_EVSE,
    "finishing": EvseState.FINISHING,
    "reserved": EvseState.RESERVED,
    "unavailable": EvseState.UNAVAILABLE,
    "faulted": EvseState.FAULTED,
}


def state_named(name: str) -> EvseState:
    """Return the EVSE state of a wire status in any case; UNKNOWN for a word nobody knows."""
    return STATES.get(name.strip().lower(), EvseState.UNKNOWN)


def accepted(status: object) -> bool:
    """Tell whether a wire status says yes."""
    return isinstance(status, str) and status.strip().lower() == "accepted"
