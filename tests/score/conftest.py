"""Benchmarks on disk, made as small as they can be."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from benchmark_files import jpeg, mmvp_all, mmvp_vlm_rows, png, write_csv


@pytest.fixture
def mmvp(tmp_path: Path) -> Callable[..., Path]:
    """Write an MMVP-shaped folder: rows, and a picture for each id."""

    def write(rows: Sequence[dict[str, Any]], *, pictures: str = "MMVP Images", suffix: str = ".jpg") -> Path:
        folder = tmp_path / "MMVP"
        write_csv(folder / "Questions.csv", rows)
        for row in rows:
            number = int(row.get("lndex") or row["Index"])
            path = folder / pictures / f"{number}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(number))
        return folder

    return write


@pytest.fixture
def drawn(tmp_path: Path) -> Callable[..., list[str]]:
    """Write so many pictures beside a table; their paths relative to it."""

    def write(count: int) -> list[str]:
        (tmp_path / "img").mkdir(exist_ok=True)
        for number in range(count):
            (tmp_path / "img" / f"p{number}.png").write_bytes(png(number))
        return [f"img/p{number}.png" for number in range(count)]

    return write


@pytest.fixture(scope="session")
def all_of_mmvp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder shaped as all of MMVP; not to be changed by a test."""
    folder = tmp_path_factory.mktemp("sets") / "MMVP"
    write_csv(folder / "Questions.csv", mmvp_all())
    (folder / "MMVP Images").mkdir()
    for number in range(1, 301):
        (folder / "MMVP Images" / f"{number}.jpg").write_bytes(jpeg(number))
    return folder


@pytest.fixture(scope="session")
def all_of_mmvp_vlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder shaped as all of MMVP-VLM; not to be changed by a test."""
    folder = tmp_path_factory.mktemp("sets") / "MMVP_VLM"
    rows = mmvp_vlm_rows()
    write_csv(folder / "Questions.csv", rows)
    for row in rows:
        path = folder / "MLLM_VLM Images" / row["Type"] / f"{row['Question ID']}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(int(row["Question ID"])))
    return folder
