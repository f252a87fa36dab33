"""The command line: `python -m pipelines`."""

from pipelines.cli.app import app

if __name__ == "__main__":
    app()
