"""A Modbus TCP connection that believes nothing: one connection, one owner, one request at a time.

Knows how a reply must look. Does not care what the registers mean. pymodbus (3.16) returns short, long and
other-function replies as good ones, and hands the late reply of a device that does not echo transaction ids to the next
request. Hence every reply is checked again here, and after any `BusError` or timeout the owner closes the connection
and makes a new one: what was still under way dies with the old socket.
"""

from enum import StrEnum
from typing import Final

from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ConnectionException, ModbusException
from pymodbus.pdu import ModbusPDU

from drivers.modbus.regmap import Block

READ_INPUT_REGISTERS: Final = 4
_EXCEPTION_BIT: Final = 0x80
_REPLY_HEAD_BYTES: Final = 9  # MBAP header (7), function code, byte count
_LIBRARY_TIMEOUT_S: Final = 60.0  # never reached: the owner's timeout is shorter, and ends in a new connection


class Problem(StrEnum):
    """Why there is no reading: a closed list, so that it can label a metric."""

    UNREACHABLE = "unreachable"
    CONNECTION_LOST = "connection_lost"
    TIMEOUT = "timeout"
    EXCEPTION_REPLY = "exception_reply"
    WRONG_REPLY = "wrong_reply"
    NO_VALUE = "no_value"
    IMPLAUSIBLE_CURRENT = "implausible_current"
    IMPLAUSIBLE_VOLTAGE = "implausible_voltage"
    IMPLAUSIBLE_POWER = "implausible_power"


class BusError(Exception):
    """The connection is of no more use; `problem` says why."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(problem.value)


class Connection:
    """One TCP connection to a Modbus device, made inside a running loop. Opened once, closed once."""

    def __init__(self, host: str, port: int) -> None:
        self._heard = b""
        self._client = AsyncModbusTcpClient(
            host, port=port, timeout=_LIBRARY_TIMEOUT_S, retries=0, reconnect_delay=0, trace_packet=self._listen
        )

    @property
    def alive(self) -> bool:
        """Whether the connection is open, as far as is known."""
        return self._client.connected

    async def open(self) -> None:
        """Connect. Raises BusError; the caller bounds the time."""
        try:
            connected = await self._client.connect()
        except UnicodeError as error:  # a host name that cannot be one
            raise BusError(Problem.UNREACHABLE) from error
        if not connected:
            raise BusError(Problem.UNREACHABLE)

    async def read(self, unit_id: int, function: int, block: Block) -> list[int]:
        """Return the registers of a block. Raises BusError; the caller bounds the time.

        The reply must be the only thing heard since the request, from the right unit, with the right function code and
        exactly the registers that were asked for.
        """
        if self._heard:  # something came unasked: whose answer the next one is could not be told
            raise BusError(Problem.WRONG_REPLY)
        ask = (
            self._client.read_input_registers
            if function == READ_INPUT_REGISTERS
            else self._client.read_holding_registers
        )
        try:
            reply = await ask(block.address, count=block.count, device_id=unit_id)
        except ConnectionException as error:
            raise BusError(Problem.CONNECTION_LOST) from error
        except ModbusException as error:
            raise BusError(Problem.WRONG_REPLY) from error
        heard_bytes, self._heard = len(self._heard), b""
        if reply.function_code == function | _EXCEPTION_BIT:
            raise BusError(Problem.EXCEPTION_REPLY)
        if not _fits(reply, unit_id, function, block) or heard_bytes != _REPLY_HEAD_BYTES + 2 * block.count:
            raise BusError(Problem.WRONG_REPLY)
        return list(reply.registers)

    def close(self) -> None:
        """Close the connection; may be called more than once."""
        self._client.close()

    def _listen(self, sending: bool, data: bytes) -> bytes:  # noqa: FBT001 - pymodbus calls it with positions
        self._heard = b"" if sending else data
        return data


def _fits(reply: ModbusPDU, unit_id: int, function: int, block: Block) -> bool:
    return (reply.dev_id, reply.function_code, len(reply.registers)) == (unit_id, function, block.count)
