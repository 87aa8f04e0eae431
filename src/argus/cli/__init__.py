"""The command line: parse, call, print. `argus --help` imports nothing heavy."""


def main() -> None:
    """The `argus` command."""
    from argus.cli.app import app

    app()
