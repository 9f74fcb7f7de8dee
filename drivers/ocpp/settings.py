"""Asking a station for samples and states, after everything that is urgent.

A station that will not is a fact, no failure: it is remembered with its answer.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from controller.ports import StationGone, StationInfo, StationRefused, StationTimeout
from drivers.ocpp.dialects.dialect import Dialect, SetupStep
from drivers.ocpp.events import Command
from drivers.ocpp.timestamps import StationClock


@dataclass(slots=True)
class StationMemory:
    """What outlives a session of a station: who it is, what it was asked, how its clock goes.

    `refused` names the settings that a station did not take, with its answer. `heard` is whether it ever said anything
    that OCPP allows. `duplicate_told_at_s` is when a second connection in its name was last written of.
    """

    info: StationInfo = field(default_factory=StationInfo)
    configured: bool = False
    clock: StationClock = field(default_factory=StationClock)
    refused: dict[str, str] = field(default_factory=dict)
    heard: bool = False
    duplicate_told_at_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to ask of one station. `send` raises a `StationError`."""

    dialect: Dialect
    memory: StationMemory
    evses: Sequence[int]
    sample_interval_s: int
    send: Callable[[Command], Awaitable[None]]

    async def ask(self, *, rebooted: bool) -> None:
        """Configure a station that may not be, and have one that reconnected tell its state."""
        if rebooted or not self.memory.configured:
            self.memory.refused.clear()
            if not await self._steps(self.dialect.configure(self.sample_interval_s)):
                return
            self.memory.configured = True
        if not rebooted:
            await self._steps(self.dialect.refresh(self.evses))

    async def _steps(self, steps: Sequence[SetupStep]) -> bool:
        """Return False when the station fell silent: more questions would only get it closed as deaf."""
        for step in steps:
            try:
                await self._step(step)
            except StationTimeout as late:
                self.memory.refused[step.name] = str(late)
                return False
            except StationGone:
                return False
        return True

    async def _step(self, step: SetupStep) -> None:
        refusal = await self._refusal(step.command)
        if refusal is not None and step.alternatives:
            refusals = [await self._refusal(command) for command in step.alternatives]
            refusal = next((one for one in refusals if one is not None), None)
        if refusal is not None:
            self.memory.refused[step.name] = refusal

    async def _refusal(self, command: Command) -> str | None:
        try:
            await self.send(command)
        except StationRefused as refused:
            return str(refused)
        return None
