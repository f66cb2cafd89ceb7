"""``python -m smpcore``, and the console script ``smpcore``."""

import sys


def main() -> None:
    """Run the command line; where its library is not installed, say which extra installs it."""
    try:
        from smpcore.diagnosis.command_line import main as run
    except ModuleNotFoundError as error:
        if error.name != "typer":
            raise
        sys.exit(f"smpcore: {error}")
    run()


if __name__ == "__main__":
    main()
