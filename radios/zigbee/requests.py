"""Requests to a node's own clusters: read, write, command, bind, unbind, bindings, configure_reporting, reporting.

Names are zigpy's, numbers are taken as well. A wrong name, number, argument or value is a result that says what and where;
no answer within the time limit is one too. Bindings and reporting that were set are kept (config_keeper). Firmware is
out of reach: the OTA cluster takes no writes or commands from here.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import zigpy.types as t
import zigpy.zcl.foundation as zcl

from radios.errors import LinkError, Unsupported
from radios.radio import NODE_REQUESTS, CommandResult, Json, NodeCommand, NodeId, parse_node_id
from radios.zigbee import arguments, exchanges
from radios.zigbee.config_keeper import ConfigKeeper
from radios.zigbee.groups import GROUPS, GroupCommands
from radios.zigbee.node_config import MAX_BINDINGS, MAX_REPORTING, Binding, ReportedAttribute, ReportTerms
from radios.zigbee.nodes import eui64, is_sleepy
from radios.zigbee.settings import ZigbeeSettings
from radios.zigbee.traffic import cluster_name
from radios.zigbee.values import fields_of, is_analog, plain, typed, zcl_type

MAX_ATTRIBUTES: Final = 16  # in one request
_READ_AT_ONCE: Final = 5  # attributes whose answer mostly fits into one frame
_NO_ENTRY: Final = "NO_ENTRY"


class NodeRequests:
    """At most `concurrent_requests` at the same time; more are refused."""

    def __init__(self, settings: ZigbeeSettings, keeper: ConfigKeeper) -> None:
        self._settings = settings
        self._keeper = keeper
        self._groups = GroupCommands()
        self._running = 0

    async def run(self, app: Any, command: NodeCommand) -> CommandResult:
        """One of `radio.NODE_REQUESTS` on zigpy's application."""
        action = _ACTIONS[command.name]
        if self._running >= self._settings.concurrent_requests:
            return CommandResult(False, f"{command.name}: busy: {self._running} requests are under way")
        self._running += 1
        try:
            async with app.request_priority(t.PacketPriority.NORMAL):
                return CommandResult(True, value=await action(self, app, command))
        except Unsupported as error:
            return CommandResult(False, str(error))
        except TimeoutError:
            return CommandResult(False, f"{command.name}: {command.node or 'the radio'} did not answer")
        except Exception as error:  # noqa: BLE001  # zigpy and its libraries raise what they like; the asker reads it
            return CommandResult(False, f"{command.name}: {type(error).__name__}: {error}")
        finally:
            self._running -= 1

    # -- attributes and commands ---------------------------------------------------------------------------------

    async def read(self, app: Any, command: NodeCommand) -> Json:
        """attributes: names or numbers. Gives values and failed, by the same names."""
        arguments.check_known(command, "endpoint", "cluster", "side", "attributes", "manufacturer")
        device = arguments.device_of(app, command)
        cluster = arguments.cluster_of(device, command)
        found = self._attributes(cluster, command)
        code = _one_manufacturer(cluster, command, [definition for _, definition in found.values()])
        values: dict[str, Json] = {}
        failed: dict[str, Json] = {}
        names = list(found)
        async with self._limit(device):
            for at in range(0, len(names), _READ_AT_ONCE):
                some = names[at : at + _READ_AT_ONCE]
                answer = await cluster.read_attributes_raw([found[name][0] for name in some], manufacturer=code)
                if isinstance(answer, zcl.DefaultResponse):
                    failed |= dict.fromkeys(some, exchanges.status_name(answer.status))
                    continue
                records = {int(record.attrid): record for record in answer.status_records}
                for name in some:
                    record = records.get(found[name][0])
                    if record is None or record.status != zcl.Status.SUCCESS:
                        failed[name] = "omitted" if record is None else exchanges.status_name(record.status)
                    else:
                        values[name] = plain(_as_defined(found[name][1], record.value.value))
        return {"values": values, "failed": failed}

    async def write(self, app: Any, command: NodeCommand) -> Json:
        """attributes: an object of names or numbers and values; a number unknown to zigpy needs {type, value}."""
        arguments.check_known(command, "endpoint", "cluster", "side", "attributes", "manufacturer")
        device = arguments.device_of(app, command)
        cluster = arguments.no_firmware(arguments.cluster_of(device, command), command)
        values = command.arguments.get("attributes")
        if not isinstance(values, dict):
            raise Unsupported("write: attributes must be an object of names and values")
        found = self._attributes(cluster, command)
        code = _one_manufacturer(cluster, command, [definition for _, definition in found.values()])
        records = [_to_write(found[str(name)], value, f"write: {name}") for name, value in values.items()]
        async with self._limit(device):
            answer = await cluster.write_attributes_raw(records, manufacturer_code=code)
        if isinstance(answer, zcl.DefaultResponse):
            raise Unsupported(f"write: the node refused it: {exchanges.status_name(answer.status)}")
        refused = {r.attrid: exchanges.status_name(r.status) for r in answer.status_records if r.attrid is not None}
        bad = {
            name: refused[number] for name, (number, _) in found.items() if refused.get(number, "SUCCESS") != "SUCCESS"
        }
        if bad:
            raise Unsupported("write: the node refused " + ", ".join(f"{name}: {why}" for name, why in bad.items()))
        return None

    async def command(self, app: Any, command: NodeCommand) -> Json:
        """command: name or number; arguments: by name, or payload: octets in hexadecimal digits. Gives the answer.

        Without a node, `group` says which nodes it is for; those do not answer.
        """
        if command.node is None:
            await self._groups.send(app, command)
            return None
        arguments.check_known(command, "endpoint", "cluster", "side", "command", "arguments", "payload", "manufacturer")
        device = arguments.device_of(app, command)
        cluster = arguments.no_firmware(arguments.cluster_of(device, command), command)
        identifier, definition = arguments.command_of(cluster, command.arguments.get("command"), "command")
        definition, values = arguments.payload_of(command, identifier, definition)
        code = arguments.effective_manufacturer(cluster, definition, arguments.manufacturer_of(command))
        ask = cluster.reply if cluster.is_client else cluster.request
        async with self._limit(device):
            # Whole, for a command's argument may be called as one of zigpy's own (timeout, priority).
            answer = await ask(False, identifier, definition.schema, definition.schema(**values), manufacturer=code)
        return _answer(answer)

    # -- bindings ------------------------------------------------------------------------------------------------

    async def bind(self, app: Any, command: NodeCommand) -> Json:
        """target: {node, endpoint}, {group}, or absent: the coordinator."""
        device, node, binding = self._binding(app, command)
        async with self._keeper.alone(node):
            before = self._keeper.wanted(node)
            if len(before.bindings) >= MAX_BINDINGS and binding not in before.bindings:
                raise Unsupported(f"bind: {node} has {MAX_BINDINGS} bindings by us already")
            await self._keeper.keep(node, before.with_binding(binding))
            status = await self._asked(node, device, lambda: exchanges.set_binding(device, binding))
            if status != exchanges.SUCCESS:
                await self._keeper.keep(node, before)
                raise Unsupported(f"bind: the node refused it: {status}")
        return None

    async def unbind(self, app: Any, command: NodeCommand) -> Json:
        """As bind."""
        device, node, binding = self._binding(app, command)
        async with self._keeper.alone(node):
            await self._keeper.keep(node, self._keeper.wanted(node).without_binding(binding))
            async with self._limit(device):
                status = await exchanges.set_binding(device, binding, unbind=True)
        if status not in (exchanges.SUCCESS, _NO_ENTRY):
            raise Unsupported(f"unbind: the node refused it: {status}")
        return None

    async def bindings(self, app: Any, command: NodeCommand) -> Json:
        """What the node's own table says."""
        arguments.check_known(command)
        device = arguments.device_of(app, command)
        own = exchanges.target_of_node(app.state.node_info.ieee)
        async with self._limit(device):
            table = await exchanges.read_bindings(device)
        if table is None:
            raise Unsupported(f"bindings: {command.node} does not show its table")
        return [
            {
                "endpoint": b.endpoint,
                "cluster": cluster_name(b.cluster),
                "target": _target(b, own),
                "kept": b in self._keeper.wanted(parse_node_id(str(command.node))).bindings,
            }
            for b in table
        ]

    # -- reporting -----------------------------------------------------------------------------------------------

    async def configure_reporting(self, app: Any, command: NodeCommand) -> Json:
        """attributes: {name: {min_s, max_s, change}}; change with types that know amounts. max_s 65535 ends reports."""
        arguments.check_known(command, "endpoint", "cluster", "attributes", "manufacturer")
        device = arguments.device_of(app, command)
        cluster = arguments.no_firmware(arguments.cluster_of(device, command), command)
        terms = command.arguments.get("attributes")
        if not isinstance(terms, dict):
            raise Unsupported("configure_reporting: attributes must be an object of names and {min_s, max_s, change}")
        found = self._attributes(cluster, command)
        named: dict[ReportedAttribute, str] = {}
        wanted: dict[ReportedAttribute, ReportTerms] = {}
        for name, (number, definition) in found.items():
            code = arguments.effective_manufacturer(cluster, definition, arguments.manufacturer_of(command))
            attribute = ReportedAttribute(int(cluster.endpoint.endpoint_id), int(cluster.cluster_id), number, code)
            named[attribute] = name
            wanted[attribute] = _terms(terms[name], definition, f"configure_reporting: {name}")
        node = parse_node_id(str(command.node))
        async with self._keeper.alone(node):
            before = self._keeper.wanted(node)
            after = before.with_reporting(wanted)
            if len(after.reporting) > MAX_REPORTING:
                raise Unsupported(f"configure_reporting: {node} would have more than {MAX_REPORTING} attributes")
            await self._keeper.keep(node, after)
            statuses = await self._asked(node, device, lambda: exchanges.set_reporting(device, wanted))
            refused = [a for a, status in statuses.items() if status != exchanges.SUCCESS]
            if refused:
                earlier = {a: before.reporting[a] for a in refused if a in before.reporting}
                await self._keeper.keep(node, after.without_reporting(refused).with_reporting(earlier))
                faults = ", ".join(f"{named[a]}: {statuses[a]}" for a in refused)
                raise Unsupported(f"configure_reporting: the node refused {faults}")
        return None

    async def reporting(self, app: Any, command: NodeCommand) -> Json:
        """attributes: names or numbers. What the node says; null: nothing is configured."""
        arguments.check_known(command, "endpoint", "cluster", "attributes", "manufacturer")
        device = arguments.device_of(app, command)
        cluster = arguments.cluster_of(device, command)
        named: dict[ReportedAttribute, str] = {}
        for name, (number, definition) in self._attributes(cluster, command).items():
            code = arguments.effective_manufacturer(cluster, definition, arguments.manufacturer_of(command))
            endpoint = int(cluster.endpoint.endpoint_id)
            named[ReportedAttribute(endpoint, int(cluster.cluster_id), number, code)] = name
        async with self._limit(device):
            said = await exchanges.read_reporting(device, named)
        values: dict[str, Json] = {
            named[a]: None if s is None else {"min_s": s.min_s, "max_s": s.max_s, "change": s.change}
            for a, s in said.items()
        }
        failed: dict[str, Json] = {name: "UNSUPPORTED_ATTRIBUTE" for a, name in named.items() if a not in said}
        return {"values": values, "failed": failed}

    # -- within --------------------------------------------------------------------------------------------------

    def _limit(self, device: Any) -> asyncio.Timeout:
        settings = self._settings
        return asyncio.timeout(settings.sleepy_request_timeout_s if is_sleepy(device) else settings.request_timeout_s)

    async def _asked(self, node: NodeId, device: Any, ask: Callable[[], Awaitable[Any]]) -> Any:
        """What is kept and could not be said now is said when the node is heard."""
        try:
            async with self._limit(device):
                return await ask()
        except Unsupported:
            raise
        except Exception as error:
            self._keeper.check(node)
            raise LinkError(f"no answer from {node} ({error!r}); kept, and set when it is heard") from error

    def _attributes(self, cluster: Any, command: NodeCommand) -> dict[str, tuple[int, Any]]:
        """Number and definition by the name that was given."""
        names = command.arguments.get("attributes")
        if not isinstance(names, list | dict) or not 1 <= len(names) <= MAX_ATTRIBUTES:
            raise Unsupported(f"{command.name}: attributes must name 1 to {MAX_ATTRIBUTES} of them")
        given = arguments.manufacturer_of(command)
        return {str(name): arguments.attribute_of(cluster, name, given, command.name) for name in names}

    def _binding(self, app: Any, command: NodeCommand) -> tuple[Any, NodeId, Binding]:
        arguments.check_known(command, "endpoint", "cluster", "side", "target")
        device = arguments.device_of(app, command)
        cluster = arguments.cluster_of(device, command)
        endpoint, cluster_id = int(cluster.endpoint.endpoint_id), int(cluster.cluster_id)
        node = parse_node_id(str(command.node))
        target = command.arguments.get("target")
        where = f"{command.name}: target"
        if target is None:
            own = app.get_dst_address(cluster)
            return device, node, Binding(endpoint, cluster_id, exchanges.target_of_node(own.ieee), int(own.endpoint))
        if isinstance(target, dict) and set(target) == {"group"}:
            group = arguments.whole(target["group"], f"{where}: group", *GROUPS)
            return device, node, Binding(endpoint, cluster_id, exchanges.target_of_group(group))
        if not isinstance(target, dict) or set(target) != {"node", "endpoint"}:
            raise Unsupported(f"{where} must be {{node, endpoint}} or {{group}}, not {target!r}")
        try:
            other = parse_node_id(str(target["node"]))
        except ValueError as error:
            raise Unsupported(f"{where}: {error}") from None
        if eui64(other) not in app.devices:
            raise Unsupported(f"{where}: {other} is not in this network")
        remote = arguments.whole(target["endpoint"], f"{where}: endpoint", 1, 254)
        return device, node, Binding(endpoint, cluster_id, other.partition(":")[2], remote)


Action = Callable[[NodeRequests, Any, NodeCommand], Awaitable[Json]]
_ACTIONS: Final[Mapping[str, Action]] = {name: getattr(NodeRequests, name) for name in NODE_REQUESTS}


def _one_manufacturer(cluster: Any, command: NodeCommand, definitions: list[Any]) -> int | None:
    given = arguments.manufacturer_of(command)
    codes = {arguments.effective_manufacturer(cluster, definition, given) for definition in definitions}
    if len(codes) > 1:
        raise Unsupported(f"{command.name}: attributes of several manufacturers must be asked one by one")
    return codes.pop()


def _as_defined(definition: Any, value: Any) -> Any:
    if definition is None or value is None:
        return value
    try:
        return definition.type(value)
    except (ValueError, TypeError):
        return value


def _to_write(found: tuple[int, Any], value: Json, where: str) -> Any:
    number, definition = found
    if isinstance(value, dict) and set(value) == {"type", "value"}:
        kind = zcl_type(value["type"], where)
        type_id, made = kind.type_id, typed(value["value"], kind.python_type, where)
    elif definition is None:
        raise Unsupported(f"{where}: zigpy does not know the attribute: give {{type, value}}")
    else:
        type_id, made = definition.zcl_type, typed(value, definition.type, where)
    return zcl.Attribute(attrid=t.uint16_t(number), value=zcl.TypeValue(type=t.uint8_t(type_id), value=made))


def _answer(answer: Any) -> Json:
    if answer is None:
        return None
    if isinstance(answer, zcl.DefaultResponse):
        if answer.status != zcl.Status.SUCCESS:
            raise Unsupported(f"command: the node refused it: {exchanges.status_name(answer.status)}")
        return {"status": exchanges.SUCCESS}
    if isinstance(answer, t.Struct):
        return {"command": answer.command.name, "arguments": fields_of(answer)}
    return {"payload": plain(answer)}


def _terms(value: Json, definition: Any, where: str) -> ReportTerms:
    if not isinstance(value, dict) or not {"min_s", "max_s"} <= set(value) <= {"min_s", "max_s", "change", "type"}:
        raise Unsupported(f"{where} must be {{min_s, max_s}}, with change where the type knows amounts")
    low = arguments.whole(value["min_s"], f"{where}: min_s", 0, 0xFFFF)
    high = arguments.whole(value["max_s"], f"{where}: max_s", 0, 0xFFFF)
    if high not in (0, 0xFFFF) and low > high:
        raise Unsupported(f"{where}: min_s {low} is more than max_s {high}")
    if definition is None and "type" not in value:
        raise Unsupported(f"{where}: zigpy does not know the attribute: give its type")
    kind = zcl_type(value["type"] if "type" in value else int(definition.zcl_type), where)
    change = value.get("change")
    if not is_analog(kind):
        if change is not None:
            raise Unsupported(f"{where}: {kind.name} knows no amounts: leave change out")
        return ReportTerms(int(kind.type_id), low, high)
    if not isinstance(change, int | float) or isinstance(change, bool):
        raise Unsupported(f"{where}: {kind.name} needs the amount of change as a number")
    typed(change, kind.python_type, f"{where}: change")
    return ReportTerms(int(kind.type_id), low, high, change)


def _target(binding: Binding, own: str) -> Json:
    if ":" in binding.target:
        return {"group": int(binding.target.partition(":")[2])}
    if binding.target == own:
        return "coordinator"
    return {"node": f"zigbee:{binding.target}", "endpoint": binding.target_endpoint}
