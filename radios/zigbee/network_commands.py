"""What is done with the dongle apart from its network: restore, form, adopt, and the network of a restored gateway. The link
is down meanwhile.

A wrong argument, backup or dongle is a result, never an exception.
"""

from typing import Any, Final

from radios.clock import Clock
from radios.errors import FrameError, LinkError, Unsupported
from radios.radio import CommandResult, Json, NodeCommand
from radios.zigbee import network
from radios.zigbee.link import Errand, RadioLink
from radios.zigbee.network_memory import NetworkMemory

NAMES: Final = frozenset({"restore", "form", "adopt"})

_BY_HAND = "`gatewayd zigbee restore BACKUP` does it by hand"
_AGAIN = "the dongle may hold no network now; the same command again is safe"


class NetworkCommands:
    """Beside `management`, which needs a network that is up."""

    def __init__(self, link: RadioLink, memory: NetworkMemory, clock: Clock) -> None:
        self._link = link
        self._memory = memory
        self._clock = clock

    async def manage(self, command: NodeCommand) -> CommandResult:
        """`restore` {backup, apply, overwrite, burn_address, keep_address, counter_gap}, `form` {abandon}, `adopt`."""
        try:
            match command.name:
                case "restore":
                    return await self._restore(command)
                case "form":
                    return await self._form(command)
                case _:
                    return await self._adopt()
        except (FrameError, Unsupported, LinkError) as error:
            return CommandResult(False, str(error))
        except Exception as error:  # noqa: BLE001  # zigpy's libraries raise what they like; the operator reads it
            # The type alone: the text of some of them repeats what was to be written, keys too.
            return CommandResult(False, f"{command.name}: {type(error).__name__}; {_AGAIN}")

    def replacement(self) -> Errand[object] | None:
        """What a dongle without a network gets by itself: the network of a gateway that was restored from a backup."""
        waiting = self._memory.replacement
        if waiting is None:
            return None

        async def write(app: Any) -> object:
            options = network.RestoreOptions(True, False, waiting.burn_address, waiting.keep_address)
            try:
                document = network.read_backup(waiting.backup)
                return await network.restore(
                    app, document, options, self._now(), before=lambda: self._memory.expect(document.network)
                )
            except (FrameError, Unsupported) as error:
                raise Unsupported(f"the restored network is not brought into the dongle: {error}; {_BY_HAND}") from None

        return write

    async def _restore(self, command: NodeCommand) -> CommandResult:
        options = network.RestoreOptions.of(command.arguments)
        document = network.read_backup(command.arguments.get("backup"))
        if not options.apply:
            if self._link.up:
                return CommandResult(True, value=await network.survey(self._link.app, document, options, self._now()))
            return CommandResult(
                True, value=await self._link.apart(lambda app: network.survey(app, document, options, self._now()))
            )

        async def write(app: Any) -> dict[str, Json]:
            # What is expected is durable before the dongle is touched: one that loses its power in between then gets no
            # network of another kind.
            return await network.restore(
                app, document, options, self._now(), before=lambda: self._memory.expect(document.network)
            )

        return CommandResult(True, value=await self._link.apart(write))

    async def _form(self, command: NodeCommand) -> CommandResult:
        abandon = command.arguments.get("abandon") is True

        async def form(app: Any) -> str:
            current = await network.look_at_network(app)
            known = self._memory.known(app) if current is None else network.describe_network(current.network_info)
            if known and not abandon:
                raise Unsupported(f"form: there is a network ({known}), whose nodes would be left behind: abandon it")
            await self._memory.expect({})
            await app.form_network()
            return known

        left = await self._link.apart(form, to_form=True)
        return CommandResult(True, value={"abandoned": left or None})

    async def _adopt(self) -> CommandResult:
        if not self._link.up:
            raise LinkError(f"the Zigbee radio is not available: {self._link.error or 'starting'}")
        await self._memory.adopt(self._link.app)
        return CommandResult(True, value=self._memory.network)

    def _now(self) -> float:
        """Unix seconds: how old a backup is."""
        return self._clock.wall.unix(self._clock.now())
