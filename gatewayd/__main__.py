"""`gatewayd` and `python -m gatewayd`."""

from gatewayd.cli.commands import gatewayd


def main() -> None:
    gatewayd(prog_name="gatewayd")


if __name__ == "__main__":
    main()
