import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.ocpp.frames import (
    CODES_V2,
    CODES_V16,
    Call,
    CallError,
    CallResult,
    Fault,
    Message,
    Payload,
    Problem,
    encode,
    parse,
)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**19), 10**19)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
IDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=36)
PAYLOADS: st.SearchStrategy[Payload] = st.dictionaries(
    st.sampled_from(["a", "b"]), st.integers(-9, 9) | st.text(st.characters(codec="utf-8"))
)
MESSAGES: st.SearchStrategy[Message] = (
    st.builds(Call, IDS, st.sampled_from(["Heartbeat", "MeterValues"]), PAYLOADS)
    | st.builds(CallResult, IDS, PAYLOADS)
    | st.builds(CallError, IDS, st.just("GenericError"), st.just("why"), PAYLOADS)
)
DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[2,"1","Heartbeat",{}]', Call("1", "Heartbeat", {})),
        (' [ 2 , "1" , "Heartbeat" , { } ] ', Call("1", "Heartbeat", {})),
        ('[3,"1",{"status":"Accepted"}]', CallResult("1", {"status": "Accepted"})),
        ('[4,"1","NotImplemented","no",{"a":1}]', CallError("1", "NotImplemented", "no", {"a": 1})),
        ('[4,"1","NotImplemented"]', CallError("1", "NotImplemented")),
        ('[4,"1","NotImplemented",null,null]', CallError("1", "NotImplemented")),
        ('[2,"1","Heartbeat",{"emoji":"\\ud83d\\ude00"}]', Call("1", "Heartbeat", {"emoji": "\U0001f600"})),
        ('[2,"1","A",{"deep in a text":"' + "[" * 50 + '"}]', Call("1", "A", {"deep in a text": "[" * 50})),
        ('[2,"1","A",{"n":"' + "1" * 30 + '"}]', Call("1", "A", {"n": "1" * 30})),
        ('[2,"1","A",{"n":0.' + "1" * 30 + "}]", Call("1", "A", {"n": 0.1111111111111111})),
        (json.dumps([2, "x" * 64, "A", {}]), Call("x" * 64, "A", {})),
    ],
)
def test_a_message_is_read(text: str, message: Message) -> None:
    assert parse(text) == message


@pytest.mark.parametrize(
    ("text", "fault", "call_id"),
    [
        ("", Fault.FORMAT, None),
        ("hello", Fault.FORMAT, None),
        ("{}", Fault.FRAME, None),
        ("[]", Fault.FRAME, None),
        ("null", Fault.FRAME, None),
        ("[2]", Fault.FRAME, None),
        ('[2,7,"Heartbeat",{}]', Fault.FRAME, None),
        ('[2,null,"Heartbeat",{}]', Fault.FRAME, None),
        ('[2,"","Heartbeat",{}]', Fault.FRAME, None),
        (json.dumps([2, "x" * 65, "Heartbeat", {}]), Fault.FRAME, None),
        ('[9,"1","Heartbeat",{}]', Fault.MESSAGE_TYPE, None),
        ('[true,"1","Heartbeat",{}]', Fault.MESSAGE_TYPE, None),
        ('[2.0,"1","Heartbeat",{}]', Fault.MESSAGE_TYPE, None),
        ('[2,"1"]', Fault.FRAME, "1"),
        ('[2,"1","Heartbeat"]', Fault.FRAME, "1"),
        ('[2,"1","Heartbeat",{},5]', Fault.FRAME, "1"),
        ('[2,"1",["Heartbeat"],{}]', Fault.FRAME, "1"),
        ('[2,"1","",{}]', Fault.FRAME, "1"),
        ('[2,"1","Heartbeat",null]', Fault.FORMAT, "1"),
        ('[2,"1","Heartbeat",[]]', Fault.FORMAT, "1"),
        ('[2,"1","Heartbeat",{', Fault.FORMAT, "1"),
        ('[2,"1","Heartbeat",{"n":NaN}]', Fault.FORMAT, "1"),
        ('[2,"1","Heartbeat",{"n":-Infinity}]', Fault.FORMAT, "1"),
        ('[2,"1","Heartbeat",{"n":1e999}]', Fault.FORMAT, "1"),
        ('[2,"1","Heartbeat",{"n":' + "1" * 21 + "}]", Fault.FORMAT, "1"),
        ('[2,"1","Heartbeat",{"n":' + "1" * 5000 + "}]", Fault.FORMAT, "1"),
        ('[2,"1","Heartbeat",{"n":"\\ud800"}]', Fault.FORMAT, "1"),
        ('[2,"1","Heartbeat",{"n":"\\ude00\\ud83d"}]', Fault.FORMAT, "1"),
        ('[2,"1","Heartbeat",{"n":"\ud800"}]', Fault.FORMAT, "1"),
        (f'[2,"1","Heartbeat",{DEEP}', Fault.FORMAT, "1"),
        (DEEP, Fault.FORMAT, None),
        ('[2,"1","A",' + '{"a":' * 32 + "1" + "}" * 32 + "]", Fault.FORMAT, "1"),
        ('"\\' * 20_000, Fault.FORMAT, None),
    ],
)
def test_a_broken_request_is_answered_where_its_id_can_be_read(text: str, fault: Fault, call_id: str | None) -> None:
    problem = parse(text)
    assert isinstance(problem, Problem)
    assert (problem.fault, problem.call_id, problem.answer_id) == (fault, call_id, None)


@pytest.mark.parametrize(
    "text", ['[3,"1"]', '[3,"1",null]', '[3,"1",{', '[4,"1"]', '[4,"1",5]', '[4,"1","a","b",{},1]']
)
def test_a_broken_answer_is_never_answered(text: str) -> None:
    problem = parse(text)
    assert isinstance(problem, Problem)
    assert (problem.call_id, problem.answer_id) == (None, "1")


def test_nesting_of_32_is_read() -> None:
    inner: Any = 1
    for _ in range(31):
        inner = {"a": inner}
    assert parse(json.dumps([2, "1", "A", inner])) == Call("1", "A", inner)


@given(st.text() | JSON.map(json.dumps) | st.text(st.sampled_from('[]{}",\\:234u dD8.e+-NaN')))
def test_no_text_upsets_the_parser(text: str) -> None:
    message = parse(text)
    if not isinstance(message, Problem):
        assert parse(encode(message)) == message


@given(MESSAGES)
def test_what_is_written_is_read_again(message: Message) -> None:
    assert parse(encode(message)) == message


def test_what_is_not_json_is_not_written() -> None:
    with pytest.raises(ValueError, match="JSON"):
        encode(CallResult("1", {"n": float("nan")}))


def test_every_fault_has_a_code_in_every_version() -> None:
    assert set(CODES_V16) == set(CODES_V2) == set(Fault)
    assert CODES_V16[Fault.FORMAT] == "FormationViolation"
    assert CODES_V2[Fault.FORMAT] == "FormatViolation"
    assert CODES_V2[Fault.FRAME] == "RpcFrameworkError"
