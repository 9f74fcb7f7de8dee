import asyncio

import pytest

from simulators.feed import Datagram, FeedReceiver, FeedSender, decode
from tests.simulators.simulated_csms import ManualClock


def said(source: str, sequence: int, current_a: float) -> bytes:
    return Datagram(source=source, sequence=sequence, current_a=(current_a, 0.0, 0.0)).encode()


def test_the_latest_of_every_source_is_summed_and_silence_is_no_load() -> None:
    clock = ManualClock()
    receiver = FeedReceiver(clock)
    receiver.receive(said("one", 1, 10.0))
    receiver.receive(said("two", 1, 5.0))
    clock.advance(2.0)
    receiver.receive(said("two", 2, 6.0))
    assert receiver.current_a() == (16.0, 0.0, 0.0)
    clock.advance(1.5)
    assert receiver.current_a() == (6.0, 0.0, 0.0)
    assert receiver.sources() == ("two",)


def test_an_overtaken_datagram_is_ignored_but_a_source_that_starts_again_is_heard() -> None:
    receiver = FeedReceiver(ManualClock())
    receiver.receive(said("one", 100, 10.0))
    receiver.receive(said("one", 99, 1.0))
    receiver.receive(said("one", 100, 2.0))
    assert receiver.current_a()[0] == 10.0
    receiver.receive(said("one", 1, 3.0))
    assert receiver.current_a()[0] == 3.0
    assert receiver.ignored == 2


def test_the_number_of_sources_is_bounded() -> None:
    clock = ManualClock()
    receiver = FeedReceiver(clock, max_sources=2)
    for name in ("one", "two", "three"):
        receiver.receive(said(name, 1, 1.0))
    assert (receiver.sources(), receiver.ignored) == (("one", "two"), 1)
    clock.advance(4.0)
    receiver.receive(said("three", 2, 1.0))
    assert receiver.sources() == ("three",)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"[" * 400,
        b'{"source":"a","sequence":1}',
        b'{"source":"","sequence":1,"current_a":[1,2,3]}',
        b'{"source":"a","sequence":true,"current_a":[1,2,3]}',
        b'{"source":"a","sequence":-1,"current_a":[1,2,3]}',
        b'{"source":"a","sequence":1,"current_a":[1,2]}',
        b'{"source":"a","sequence":1,"current_a":[1,2,NaN]}',
        b'{"source":"a","sequence":1,"current_a":[1,2,1e9]}',
        b'{"source":"a","sequence":1,"current_a":[1,2,"3"]}',
        b'{"source":"a","sequence":1,"current_a":[1,2,3],"pad":"' + b"x" * 600 + b'"}',
    ],
)
def test_anything_odd_is_ignored_and_counted(data: bytes) -> None:
    receiver = FeedReceiver(ManualClock())
    assert decode(data) is None
    receiver.receive(data)
    assert (receiver.ignored, receiver.received, receiver.sources()) == (1, 0, ())


class ListeningReceiver(FeedReceiver):
    """A receiver that tells when it has heard something."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.heard = asyncio.Event()

    def receive(self, data: bytes) -> None:
        super().receive(data)
        self.heard.set()


async def test_a_load_crosses_a_real_socket() -> None:
    receiver = ListeningReceiver(ManualClock())
    port = await receiver.open()
    sender = FeedSender(port=port, source="stations")
    task = asyncio.create_task(sender.run(lambda: (1.25, 2.5, -3.0)))
    try:
        async with asyncio.timeout(10):
            await receiver.heard.wait()
        assert receiver.current_a() == (1.25, 2.5, -3.0)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        receiver.close()
