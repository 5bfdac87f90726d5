"""Figures as Markdown: medians, ranges and ratios of boots that took turns."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterator
from pathlib import Path

Boots = dict[str, list[tuple[float, float, dict[str, float]]]]
"""Kind -> boots: seconds to the first 200, the machine's CPU seconds by then, and seconds of each part."""

BOUGHT = ("fetch: git", "converge: apt", "converge: git and uv, the release")
"""Parts that are somebody else's work, as far as a report can tell them apart."""
SCRIPTS = ("git", "apt", "uv")


def page(boots: Boots) -> str:
    """All tables."""
    return "\n".join([machine(), "", *_totals(boots), "", *_others(boots), *_parts(boots)]) + "\n"


def machine() -> str:
    """The host, in a line."""
    model = next(
        (
            ln.split(":")[1].strip()
            for ln in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in ln
        ),
        platform.machine(),
    )
    return f"{os.cpu_count()} cores ({model}), Linux {platform.release()}, Python {platform.python_version()}"


def _totals(boots: Boots) -> Iterator[str]:
    yield "| PID 1 to the first 200 | n | ours | by hand | ratio, pair by pair |"
    yield "| --- | --- | --- | --- | --- |"
    for state in ("cold", "warm"):
        for which, what in enumerate(("seconds", "CPU seconds")):
            ours, script = (
                [boot[:2][which] for boot in boots[f"{kind}, {state}"]] for kind in ("ours", "by hand")
            )
            ratios = [one / other for one, other in zip(ours, script, strict=True)]
            yield f"| {state}, {what} | {len(ours)} | {spread(ours)} | {spread(script)} | {spread(ratios)} |"


def _others(boots: Boots) -> Iterator[str]:
    """What is neither apt nor git nor uv: by our own report, and by what the script needs for those."""
    for state in ("cold", "warm"):
        pairs = list(zip(boots[f"ours, {state}"], boots[f"by hand, {state}"], strict=True))
        own = [total - sum(parts[name] for name in BOUGHT) for (total, _, parts), _ in pairs]
        strict = [total - sum(parts[name] for name in SCRIPTS) for (total, *_), (*_, parts) in pairs]
        script = [total - sum(parts[name] for name in SCRIPTS) for _, (total, _, parts) in pairs]
        yield f"{state}: not apt, git or uv: {spread(own)} s by our report; {spread(strict)} s less the script's own apt, git and uv; the script itself {spread(script)} s"
        yield ""


def _parts(boots: Boots) -> Iterator[str]:
    for kind in ("ours", "by hand"):
        cold, warm = ([parts for *_, parts in boots[f"{kind}, {state}"]] for state in ("cold", "warm"))
        yield f"| {kind} | cold, s | warm, s |"
        yield "| --- | --- | --- |"
        for name in cold[0]:
            one, other = ([parts[name] for parts in found] for found in (cold, warm))
            yield f"| {name} | {spread(one)} | {spread(other)} |"
        yield ""


def spread(values: list[float]) -> str:
    """Median (least-most)."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"
