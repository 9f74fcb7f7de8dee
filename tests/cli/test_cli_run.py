"""`laadplein run`: it starts whatever is missing around it, and ends cleanly when it is told to."""

import asyncio
import json
import signal
import socket
from pathlib import Path

import pytest

from tests.cli.command import laadplein, started, taken_port
from tests.shell.site_text import spoilt

LISTENS = r"stations connect to ws://127\.0\.0\.1:(\d+)/<identity>"
ASSUMED = ('timezone = "Europe/Amsterdam"', 'clock = "assumed"')
NO_METER = ('host = "127.0.0.1"', 'host = "127.0.0.1"\nport = 1')  # nobody listens there


def site_in(folder: Path, *changes: tuple[str, str], state: str | None = None, http_port: int = 0) -> str:
    state_section = f'[state]\ndirectory = "{state}"\n' if state else ""
    http_section = f"[http]\nport = {http_port}\n"
    path = folder / "site.toml"
    path.write_text(
        spoilt(ASSUMED, NO_METER, ("[policy]", f"{state_section}{http_section}[policy]"), *changes), encoding="utf-8"
    )
    return str(path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_ends_cleanly_on_a_signal_and_leaves_its_memory(tmp_path: Path, number: signal.Signals) -> None:
    state = tmp_path / "state"
    async with started("run", site_in(tmp_path, state=str(state))) as service:
        port = int((await service.says(LISTENS))[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /nobody HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n")
        writer.write(b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
        assert b"404" in await reader.readline()
        writer.close()
        ended = await service.ended(number)
    assert (ended.code, ended.stdout) == (0, "")
    assert "stopping: every station keeps its lease" in ended.stderr
    assert "Traceback" not in ended.stderr
    checkpoint = json.loads((state / "checkpoint.json").read_text(encoding="utf-8"))
    assert set(checkpoint["evidence"]) == {"alpha", "bravo-1", "bravo-2"}
    assert checkpoint["memory"]["decided_at_s"] is not None
    with socket.socket() as after:
        assert after.connect_ex(("127.0.0.1", port)) != 0


async def test_it_starts_again_from_what_it_left_and_all_it_decided_replays(tmp_path: Path) -> None:
    state = tmp_path / "state"
    site = site_in(tmp_path, state=str(state))
    for _ in range(2):
        async with started("run", site) as service:
            await service.says(LISTENS)
            assert (await service.ended(signal.SIGTERM)).code == 0
    replayed = laadplein("replay", str(state / "journal.jsonl.gz"), "--json")
    assert replayed.code == 0
    assert json.loads(replayed.stdout)["cycles"] >= 2


async def test_a_folder_that_cannot_be_written_does_not_stop_control(tmp_path: Path) -> None:
    (tmp_path / "state" / "checkpoint.new").mkdir(parents=True)
    (tmp_path / "state" / "journal.jsonl.gz").mkdir()
    async with started("run", site_in(tmp_path, state=str(tmp_path / "state"))) as service:
        await service.says(LISTENS)
        await service.says("checkpoint not saved: ")
        ended = await service.ended(signal.SIGTERM)
    assert ended.code == 0
    assert "Traceback" not in ended.stderr
    assert "checkpoint not saved: " not in ended.stderr.split("checkpoint not saved: ", 1)[1]


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize("below", ["", "/state"])
def test_a_state_directory_that_is_none_is_refused_with_its_place(tmp_path: Path, command: str, below: str) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    site = site_in(tmp_path, state=f"{tmp_path}/file{below}")
    number = 1 + Path(site).read_text(encoding="utf-8").splitlines().index(f'directory = "{tmp_path}/file{below}"')
    ended = laadplein(command, site)
    assert (ended.code, ended.stdout) == (2, "")
    assert ended.stderr == (
        f"{site}:{number}: state.directory: {tmp_path}/file exists and is not a directory; "
        "name a directory, or move away what is there\n"
    )


async def test_an_http_port_that_is_taken_does_not_stop_control(tmp_path: Path) -> None:
    with taken_port() as port:
        async with started("run", site_in(tmp_path, http_port=port)) as service:
            await service.says(LISTENS)
            await service.says(rf"http.*{port}")
            assert (await service.ended(signal.SIGTERM)).code == 0


async def test_quiet_says_nothing_but_warnings(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with started("-q", "run", site_in(tmp_path, state=str(state))) as service:
        async with asyncio.timeout(30.0):
            while not (state / "checkpoint.json").exists():  # noqa: ASYNC110 - another process makes it
                await asyncio.sleep(0.05)
        ended = await service.ended(signal.SIGTERM)
    assert ended.code == 0
    assert " INFO " not in ended.stderr


def test_a_port_that_is_taken_is_named_with_its_key_and_a_remedy(tmp_path: Path) -> None:
    with taken_port() as port:
        site = site_in(tmp_path, ("[ocpp]\nport = 0", f"[ocpp]\nport = {port}"))
        ended = laadplein("run", site)
    assert (ended.code, ended.stdout) == (2, "")
    assert f"{site}: ocpp.port: cannot listen on 127.0.0.1:{port}: " in ended.stderr
    assert "; choose a free port, or stop what uses it" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_address_that_is_not_ours_is_named(tmp_path: Path) -> None:
    site = site_in(tmp_path, ("[ocpp]\nport = 0", '[ocpp]\nport = 0\nhost = "192.0.2.1"'))
    ended = laadplein("run", site)
    assert ended.code == 2
    assert "cannot listen on 192.0.2.1:0: " in ended.stderr
