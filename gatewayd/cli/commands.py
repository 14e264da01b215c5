"""The group `gatewayd`, and where each command lives. A command's module is imported when it is called, so help is quick."""

from importlib import import_module

import click

_COMMANDS = {
    "run": ("gatewayd.cli.daemon:run", "Run the daemon."),
    "check-config": ("gatewayd.cli.daemon:check_config", "Name every fault of a configuration file."),
    "status": ("gatewayd.cli.operator:status", "Show the gateway, its campaigns and its nodes."),
    "nodes": ("gatewayd.cli.operator:nodes", "List the nodes."),
    "plan": ("gatewayd.cli.operator:plan", "Show what a campaign's transfers were planned to take."),
    "hold": ("gatewayd.cli.operator:hold", "Hold a campaign on this gateway."),
    "resume": ("gatewayd.cli.operator:resume", "Lift the operator's hold on a campaign."),
    "zigbee": ("gatewayd.cli.zigbee:zigbee", "The Zigbee network: joining, leaving, backups."),
    "backup": ("gatewayd.cli.backup:backup", "Make a backup of the whole gateway."),
    "restore": ("gatewayd.cli.backup:restore", "Go on from a backup, on other hardware."),
    "radios": ("gatewayd.cli.serial_ports:radios", "List serial ports where a dongle may be."),
    "publish": ("gatewayd.publisher.commands:publish", "Keys, repository, releases, campaigns: the cloud side."),
    "demo": ("gatewayd.demo.command:demo", "A whole site on this machine, on loopback."),
}


class LazyGroup(click.Group):
    """A group whose commands are named here and loaded when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name][0].partition(":")
        command = getattr(import_module(module), name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}:{name} is no command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


def _print_version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from gatewayd.service.version import version

        click.echo(f"gatewayd {version()}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, callback=_print_version, expose_value=False, is_eager=True, help="Say which.")
def gatewayd() -> None:
    """Firmware updates for nodes behind this gateway."""
