import re
import tomllib

import pytest

from controller.cli.main import main
from tests.cli.command import laadplein
from tests.house.source import ROOT

COMMANDS = ("run", "check", "demo", "station", "meter", "replay")


def test_help_names_every_command() -> None:
    ended = laadplein("--help")
    assert (ended.code, ended.stderr) == (0, "")
    for command in COMMANDS:
        assert re.search(rf"^ +{command} +\w", ended.stdout, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_its_own_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: laadplein {command} ")


def test_the_version_is_the_packages() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    ended = laadplein("--version")
    assert (ended.code, ended.stdout) == (0, f"laadplein {version}\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "the following arguments are required: COMMAND"),
        (("simulat",), "invalid choice: 'simulat'"),
        (("run",), "the following arguments are required: SITE.toml"),
        (("check", "a.toml", "--jsn"), "unrecognized arguments: --jsn"),
        (("meter",), "the following arguments are required: --map"),
        (("meter", "--map", "eastron_sdm630", "--port", "65536"), "65536 is not a port (0 to 65535)"),
        (("meter", "--map", "eastron_sdm630", "--unit-id", "256"), "256 is not a Modbus unit (0 to 255)"),
        (("meter", "--map", "eastron_sdm630", "--base-a", "nan"), "nan is not a finite number"),
        (("meter", "--map", "nosuch"), "there is no register map 'nosuch'; available: "),
        (("demo", "--seconds", "0"), "0 is not a positive number"),
        (("demo", "--seconds", "inf"), "inf is not a finite number"),
        (("demo", "--port", "-1"), "-1 is not a port (0 to 65535)"),
        (("station",), "the following arguments are required: --url"),
        (("station", "--url", "http://127.0.0.1:1/x"), "not a websocket address; write ws://HOST:PORT/PATH/IDENTITY"),
        (("station", "--url", "ws://127.0.0.1:1/x", "--count", "0"), "0 is not a positive whole number"),
        (("station", "--url", "ws://127.0.0.1:1/x", "--ocpp", "1.5"), "invalid choice: '1.5'"),
        (("station", "--url", "ws://127.0.0.1:1/x", "--feed", "nowhere"), "nowhere is not an address; write HOST:PORT"),
        (("station", "--url", "ws://127.0.0.1:1/x", "--feed", "x:70000"), "70000 is not a port (0 to 65535)"),
        (("replay", "nosuch.jsonl"), "give the path of a journal.jsonl.gz"),
    ],
)
def test_what_cannot_be_understood_is_said_on_stderr_with_exit_2(
    arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: object = main(arguments)
    except SystemExit as ended:  # what the parser itself refuses
        code = ended.code
    assert code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err


@pytest.mark.parametrize("arguments", [(), ("meter", "--map", "nosuch"), ("replay", "nosuch.jsonl")])
def test_as_a_process_of_its_own_it_exits_2_too(arguments: tuple[str, ...]) -> None:
    ended = laadplein(*arguments)
    assert (ended.code, ended.stdout) == (2, "")
    assert ended.stderr
    assert "Traceback" not in ended.stderr
