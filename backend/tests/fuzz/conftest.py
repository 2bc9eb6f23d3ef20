"""The table after a long run: inputs tried, crashes, leaks."""

from __future__ import annotations

import pytest

from tests.fuzz_world import EXAMPLES, TRIED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line a target."""
    if EXAMPLES is None or not TRIED:
        return
    write = terminalreporter.write_line
    write("")
    write(f"{'target':<28} {'inputs tried':>12} {'crashes':>8} {'leaks':>6}")
    for target, figures in sorted(TRIED.items()):
        write(f"{target:<28} {figures.inputs:>12,} {figures.crashes:>8} {figures.leaks:>6}")
    total = TRIED.values()
    write(
        f"{'all':<28} {sum(one.inputs for one in total):>12,} {sum(one.crashes for one in total):>8} "
        f"{sum(one.leaks for one in total):>6}"
    )
