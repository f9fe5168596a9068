"""`python -m deployguard`, and the console scripts: `deployguard`, and what kubectl finds as its plugin."""

from __future__ import annotations


def main() -> None:
    """Run the command line; never returns."""
    import gc

    # Start-up makes many objects that stay: looking through them again and again costs a tenth of a short command.
    gc.set_threshold(50_000, 20, 20)
    from deployguard.cli.app import run

    code = run()
    # The end looks through everything once more for cycles to break; the system takes it all back anyway.
    gc.freeze()
    gc.disable()
    raise SystemExit(code)


def kubectl_complete() -> None:
    """Answer kubectl's question how a command line of its plugin goes on; never returns."""
    import sys

    from deployguard.cli.completion import for_kubectl

    raise SystemExit(for_kubectl(sys.argv[1:]))


if __name__ == "__main__":
    main()
