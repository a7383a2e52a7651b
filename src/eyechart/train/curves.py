"""Loss curves drawn from the log lines that training writes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from eyechart.core.errors import UserError


def read_losses(log: Path) -> list[dict[str, Any]]:
    """The lines of a `loss.jsonl`: `step`, `loss`, `learning_rate` ...; a last torn line is left out.

    Raises:
        UserError: there is no such file.
    """
    if not log.is_file():
        raise UserError(f"there is no loss log {log}")
    lines = [line for line in log.read_text().splitlines() if line.endswith("}")]
    return [json.loads(line) for line in lines]


def draw_curves(logs: Mapping[str, Path], out: Path) -> Path:
    """Draw the loss of each stage over its steps, and its learning rate below, side by side.

    Args:
        logs: by the name of a stage its `loss.jsonl`.
        out: a `.png`, `.svg` or `.pdf`.
    """
    figure = Figure(figsize=(4.8 * max(len(logs), 1), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(
        2, max(len(logs), 1), squeeze=False, sharex="col", gridspec_kw={"height_ratios": [3, 1]}
    )
    for column, (name, log) in enumerate(logs.items()):
        _draw(axes[0][column], axes[1][column], name, read_losses(log))
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=120)
    return out


def _draw(above: Any, below: Any, name: str, lines: list[dict[str, Any]]) -> None:
    steps = [line["step"] for line in lines]
    above.plot(steps, [line["loss"] for line in lines], color="#1f4e79")
    above.set_title(f"{name}: loss on answers (nats a token)", fontsize=10)
    above.grid(alpha=0.3)
    below.plot(steps, [line["learning_rate"] for line in lines], color="#7a7a7a")
    below.set_title("learning rate", fontsize=9)
    below.set_xlabel("step")
    below.grid(alpha=0.3)
