"""Reasons as sentences: one table over `ReasonCode`, per language.

Knows how to say a reason to a person. Does not care how the reason came about.

A sentence may hold parts in square brackets; such a part is left out when one of its values is unknown:

    {source}     the object that the reason names
    {phase}      L1, L2 or L3
    {amount}     value with its unit, such as `13.8 A` or `55 kW`
    {remaining}  how long it still holds, such as `8 s` or `9 min`
"""

import math
import re
from collections.abc import Mapping
from typing import Final

from controller.core.model import Reason, ReasonCode

DEFAULT_LANGUAGE: Final = "en"

SENTENCES: Final[Mapping[str, Mapping[ReasonCode, str]]] = {
    "en": {
        ReasonCode.EVSE_MAX: "It may draw all that this EVSE and its cable allow[: {amount}].",
        ReasonCode.VEHICLE: "The vehicle itself draws less than it could[; its offer is kept at {amount}].",
        ReasonCode.CIRCUIT: "Circuit[ {source}] has no more room[ on phase {phase}][; its limit is {amount}].",
        ReasonCode.CONTRACT: "Contract[ {source}] leaves no more in this interval[; it allows {amount} now].",
        ReasonCode.FAIRNESS: "It waits its turn: there is no room for all at once, and others have had less.",
        ReasonCode.MIN_CURRENT_PAUSE: (
            "Paused: no room for the lowest current a vehicle can charge at[, because of {source}][ on phase {phase}]"
            "[ with its limit of {amount}]."
        ),
        ReasonCode.MIN_OFF: "Paused a moment ago; a pause lasts a minimum time[, still {remaining}].",
        ReasonCode.RAMP: "The current is raised step by step[ to {amount}][; the next step can come in {remaining}].",
        ReasonCode.AWAITING_ROOM: "More comes once others are seen to have made room[ on {source}][, phase {phase}].",
        ReasonCode.METER_STALE: "The meter[ of {source}] gives no fresh readings, so nothing is raised.",
        ReasonCode.NO_VEHICLE: "No vehicle is connected.",
        ReasonCode.AWAITING_TRANSACTION: "It gets a setpoint once a transaction has started[; {amount} is kept free].",
        ReasonCode.COMMS_FAILSAFE: (
            "The charging station is silent; what it may draw by itself is kept free for it[: {amount}]."
        ),
        ReasonCode.COMMAND_PENDING: "The charging station has yet to answer a setpoint[; {amount} is kept free].",
        ReasonCode.CHARGER_REFUSED: "The charging station refused the last setpoint[; {amount} is kept free for it].",
        ReasonCode.DISOBEDIENT: "The vehicle draws more than its setpoint; what it draws is kept free[: {amount}].",
        ReasonCode.INFEASIBLE: "There is not enough room[ on {source}] for all, so every EVSE is at its lowest.",
        ReasonCode.GUARD: "The independent safety check replaced the setpoint by a safe one[: {amount}].",
    },
    "nl": {
        ReasonCode.EVSE_MAX: "Alles wat dit laadpunt en de kabel toelaten mag worden gebruikt[: {amount}].",
        ReasonCode.VEHICLE: "Het voertuig neemt zelf minder af dan het zou mogen[; het aanbod blijft op {amount}].",
        ReasonCode.CIRCUIT: "Groep[ {source}] heeft geen ruimte meer[ op fase {phase}][; de grens is {amount}].",
        ReasonCode.CONTRACT: "Contract[ {source}] laat in dit interval niet meer toe[; nu mag {amount}].",
        ReasonCode.FAIRNESS: "Wacht op zijn beurt: er is geen ruimte voor alles tegelijk en andere kregen minder.",
        ReasonCode.MIN_CURRENT_PAUSE: (
            "Gepauzeerd: geen ruimte voor de laagste laadstroom van een voertuig[, door {source}][ op fase {phase}]"
            "[ met als grens {amount}]."
        ),
        ReasonCode.MIN_OFF: "Net gepauzeerd; een pauze duurt een minimale tijd[, nog {remaining}].",
        ReasonCode.RAMP: "De stroom gaat stap voor stap omhoog[ naar {amount}][; de volgende kan over {remaining}].",
        ReasonCode.AWAITING_ROOM: (
            "Er komt meer stroom zodra is gemeten dat andere laadpunten ruimte hebben gemaakt[ op {source}]"
            "[, fase {phase}]."
        ),
        ReasonCode.METER_STALE: "De meter[ van {source}] geeft geen verse meetwaarden; daarom gaat niets omhoog.",
        ReasonCode.NO_VEHICLE: "Er is geen voertuig aangesloten.",
        ReasonCode.AWAITING_TRANSACTION: "Sturen kan zodra er een transactie is gestart[; {amount} blijft vrij].",
        ReasonCode.COMMS_FAILSAFE: "Het laadstation zwijgt; wat het uit zichzelf mag afnemen blijft vrij[: {amount}].",
        ReasonCode.COMMAND_PENDING: "Het laadstation antwoordde nog niet op de instelling[; {amount} blijft vrij].",
        ReasonCode.CHARGER_REFUSED: "Het laadstation weigerde de laatste instelling[; {amount} blijft vrij].",
        ReasonCode.DISOBEDIENT: "Het voertuig neemt meer af dan ingesteld; wat het afneemt blijft vrij[: {amount}].",
        ReasonCode.INFEASIBLE: "Er is niet genoeg ruimte[ op {source}] voor alles; elk laadpunt staat op zijn laagst.",
        ReasonCode.GUARD: "De onafhankelijke controle verving de instelling door een veilige[: {amount}].",
    },
}

PHASE_NAMES: Final = ("L1", "L2", "L3")

_DECIMAL_MARK: Final[Mapping[str, str]] = {"en": ".", "nl": ","}
_OPTIONAL_PART = re.compile(r"\[([^\[\]]*)\]")
_KILO: Final = {"W": "kW", "Wh": "kWh"}
_SECONDS_UP_TO: Final = 90


def explain(reason: Reason, now_s: float, language: str = DEFAULT_LANGUAGE) -> str:
    """Return one sentence for a reason, at `now_s` on the clock of its `until_s`.

    Raises KeyError on a language that `SENTENCES` does not have.
    """
    known = _words(reason, now_s, language)

    def part(match: re.Match[str]) -> str:
        try:
            return match[1].format_map(known)
        except KeyError:
            return ""

    return _OPTIONAL_PART.sub(part, SENTENCES[language][reason.code])


def phase_name(phase: int | None) -> str | None:
    """Return L1, L2 or L3 for 0, 1, 2; None when no one phase is meant."""
    return None if phase is None else PHASE_NAMES[phase]


def _words(reason: Reason, now_s: float, language: str) -> Mapping[str, str]:
    candidates = {
        "source": reason.source or None,
        "phase": phase_name(reason.phase),
        "amount": _amount(reason.value, reason.unit, language),
        "remaining": _remaining(reason.until_s, now_s),
    }
    return {name: text for name, text in candidates.items() if text is not None}


def _amount(value: float | None, unit: str, language: str) -> str | None:
    if value is None or not math.isfinite(value):
        return None
    if unit in _KILO:
        value, unit = value / 1000, _KILO[unit]
    # At most one decimal, and none that says nothing: 32 A, 13.8 A.
    text = f"{value:.1f}".removesuffix(".0")
    return f"{text.replace('.', _DECIMAL_MARK[language])} {unit}"


def _remaining(until_s: float | None, now_s: float) -> str | None:
    """Return the time left; None when it does not end, or just has."""
    if until_s is None or not math.isfinite(until_s) or until_s <= now_s:
        return None
    left_s = math.ceil(until_s - now_s)
    return f"{left_s} s" if left_s <= _SECONDS_UP_TO else f"{math.ceil(left_s / 60)} min"
