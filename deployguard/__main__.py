"""`python -m deployguard`, and the console script."""

from __future__ import annotations


def main() -> None:
    """Run the command line; never returns."""
    from deployguard.cli.app import run

    raise SystemExit(run())


if __name__ == "__main__":
    main()
