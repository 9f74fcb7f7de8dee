import re

import pytest

from controller.core.explain import SENTENCES, explain
from controller.core.model import Reason, ReasonCode

LANGUAGES = sorted(SENTENCES)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_reason_has_a_sentence(language: str) -> None:
    assert set(SENTENCES[language]) == set(ReasonCode)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("code", ReasonCode)
def test_a_reason_reads_as_one_sentence_with_and_without_its_details(language: str, code: ReasonCode) -> None:
    full = Reason(code=code, source="hall-a", value=32.0, unit="A", phase=1, until_s=60.0)
    for reason in (full, Reason(code=code)):
        sentence = explain(reason, 0.0, language)
        assert re.fullmatch(r"[A-Z][^\[\]{}]*[^\s\[\]{}.]\.", sentence), sentence
        assert "None" not in sentence
        assert "  " not in sentence


@pytest.mark.parametrize("code", ReasonCode)
def test_languages_tell_the_same_details(code: ReasonCode) -> None:
    details = {language: sorted(re.findall(r"\{\w+\}", SENTENCES[language][code])) for language in LANGUAGES}
    assert details["nl"] == details["en"]


@pytest.mark.parametrize(
    ("reason", "language", "sentence"),
    [
        (
            Reason(code=ReasonCode.CIRCUIT, source="hall-a", value=32.0, unit="A", phase=1),
            "en",
            "Circuit hall-a has no more room on phase L2; its limit is 32 A.",
        ),
        (
            Reason(code=ReasonCode.CIRCUIT, source="hall-a", value=13.84, unit="A", phase=0),
            "nl",
            "Groep hall-a heeft geen ruimte meer op fase L1; de grens is 13,8 A.",
        ),
        (
            Reason(code=ReasonCode.CONTRACT, source="gtv", value=61_240.0, unit="W"),
            "en",
            "Contract gtv leaves no more in this interval; it allows 61.2 kW now.",
        ),
        (
            Reason(code=ReasonCode.MIN_OFF, until_s=640.0),
            "en",
            "Paused a moment ago; a pause lasts a minimum time, still 9 min.",
        ),
        (
            Reason(code=ReasonCode.RAMP, value=20.0, until_s=107.2),
            "en",
            "The current is raised step by step to 20 A; the next step can come in 8 s.",
        ),
        # What has just ended, or never ends, has no remaining time to tell.
        (Reason(code=ReasonCode.MIN_OFF, until_s=100.0), "en", "Paused a moment ago; a pause lasts a minimum time."),
        (
            Reason(code=ReasonCode.CIRCUIT, source="grid", value=float("inf")),
            "en",
            "Circuit grid has no more room.",
        ),
    ],
)
def test_details_are_told_with_their_units(reason: Reason, language: str, sentence: str) -> None:
    assert explain(reason, 100.0, language) == sentence
