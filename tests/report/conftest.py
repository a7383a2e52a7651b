"""Synthetic run folders: the files an exam leaves behind, made without a model."""

import hashlib
import io
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from eyechart.core.stats import wilson

PATTERNS = ("orientation", "quantity", "color")

PAIR_COLUMNS = pa.schema(
    [
        *((name, pa.string()) for name in ("pair_id", "pattern", "item_a", "item_b", "image_a", "image_b")),
        *(
            (f"{kind}_{who}", pa.float64())
            for who in ("model", "reference")
            for kind in ("similarity", "percentile")
        ),
        *((name, pa.bool_()) for name in ("suspect", "right_a", "right_b", "pair_right")),
    ]
)


def swatch(pair: int, side: int) -> Image.Image:
    """A small plain picture, another for every item."""
    return Image.new("RGB", (32, 24), ((pair * 37) % 256, (side * 120) % 256, (pair * 11) % 256))


@dataclass(kw_only=True)
class Folder:
    """What the files of a run folder will hold; change it, then `write` it."""

    samples: list[dict[str, Any]] = field(default_factory=list)
    pairs: list[dict[str, Any]] = field(default_factory=list)
    quarantine: list[dict[str, Any]] = field(default_factory=list)
    block: dict[str, Any] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)
    thumbs: dict[str, bytes] = field(default_factory=dict)

    def score(self) -> "Folder":
        """Set every number of the results to what pairs and samples say."""
        pairs, samples = self.pairs, self.samples
        right = [sample["outcome"] == "right" for sample in samples]
        unread = sum(sample["outcome"] == "unread" for sample in samples)
        read = [sample["filtered_resps"][0] for sample in samples if sample["filtered_resps"][0]]
        favourite = max(sorted(set(read)), key=read.count) if read else None
        overall = wilson(sum(pair["pair_right"] for pair in pairs), len(pairs))
        self.block["score"] = {
            "pairs": overall.to_dict(),
            "images": wilson(sum(right), len(right)).to_dict(),
            "unread": wilson(unread, len(samples)).to_dict(),
            "chance_pairs": 0.25,
            "chance_images": 0.5,
            "above_chance": "above" if overall.low > 0.25 else "below" if overall.high < 0.25 else "at",
            "favourite_option": favourite
            and {"label": favourite, "share": wilson(read.count(favourite), len(read)).to_dict()},
        }
        self.block["patterns"] = [self._pattern(name) for name in dict.fromkeys(p["pattern"] for p in pairs)]
        self.block["find"] = self._find() if self.block["reference"] else None
        counts = {"items": len(samples), "pairs": len(pairs), "images": len(samples)}
        self.block["benchmark"].update(counts, quarantined=len(self.quarantine))
        return self

    def _pattern(self, name: str | None) -> dict[str, Any]:
        pairs = [pair for pair in self.pairs if pair["pattern"] == name]
        samples = [sample for sample in self.samples if sample["doc"]["pattern"] == name]
        right = [sample["outcome"] == "right" for sample in samples]
        return {
            "pattern": "(none)" if name is None else name,
            "pairs": wilson(sum(pair["pair_right"] for pair in pairs), len(pairs)).to_dict(),
            "images": wilson(sum(right), len(right)).to_dict(),
            "unread": sum(sample["outcome"] == "unread" for sample in samples),
            "chance_pairs": 0.25,
            "suspects": sum(bool(pair["suspect"]) for pair in pairs) if self.block["reference"] else None,
        }

    def _find(self) -> dict[str, Any]:
        suspects = [pair["pair_right"] for pair in self.pairs if pair["suspect"]]
        others = [pair["pair_right"] for pair in self.pairs if not pair["suspect"]]
        return {
            "percentile": 95.0,
            "suspects": wilson(len(suspects), len(self.pairs)).to_dict(),
            "compared": 4950,
            "threshold_model": 0.94,
            "threshold_reference": 0.71,
            "right_suspects": wilson(sum(suspects), len(suspects)).to_dict() if suspects else None,
            "right_others": wilson(sum(others), len(others)).to_dict() if others else None,
            "p_value": 0.0412 if suspects and others else None,
        }

    def set_beside(self, verdicts: dict[str, str], *, overall: str = "better") -> "Folder":
        """Show one other model beside this one, with a verdict for each pattern; call after `score`."""
        rate = wilson(9, 12).to_dict()
        self.block["beside"] = {
            "command": "eyechart exam example/cup-vlm-1b example/second --out runs",
            "test": "exact McNemar test",
            "error_rate": 0.05,
            "about": None,
            "others": [
                {
                    "id": "example/second",
                    "trained": True,
                    "about": "it was told more",
                    "page": "../second/report.html",
                    "pairs": rate,
                    "unread": wilson(1, 24).to_dict(),
                    "against": _against(overall, n=12),
                    "patterns": [
                        {
                            "pattern": pattern,
                            "pairs": wilson(3, 4).to_dict(),
                            "against": _against(verdict, n=4),
                        }
                        for pattern, verdict in verdicts.items()
                    ],
                }
            ],
        }
        return self

    def write(self, path: Path) -> Path:
        """Write all files of the folder."""
        (path / "thumbs").mkdir(parents=True)
        for sha256, data in self.thumbs.items():
            (path / "thumbs" / f"{sha256}.jpg").write_bytes(data)
        lines = "".join(json.dumps(sample) + "\n" for sample in self.samples)
        (path / "samples_toy.jsonl").write_text(lines, encoding="utf-8")
        results = {"results": {"toy": {"alias": "toy"}}, "eyechart": self.block}
        (path / "results.json").write_text(json.dumps(results), encoding="utf-8")
        (path / "manifest.json").write_text(json.dumps(self.manifest), encoding="utf-8")
        (path / "config.yaml").write_text("ask: generate\nseed: 0\n", encoding="utf-8")
        pq.write_table(pa.Table.from_pylist(self.pairs, PAIR_COLUMNS), path / "pairs.parquet")
        columns = pa.schema([(name, pa.string()) for name in ("path", "reason", "detail")])
        pq.write_table(pa.Table.from_pylist(self.quarantine, columns), path / "quarantine.parquet")
        return path


def make_folder(
    *,
    pairs: int = 12,
    seed: int = 0,
    patterns: tuple[str | None, ...] = PATTERNS,
    draw: Callable[[int, int], Image.Image] = swatch,
) -> Folder:
    """A folder with every kind of outcome, some suspects, one quarantined input and one warning."""
    rng = random.Random(seed)
    folder = Folder(block=_block(), manifest=_manifest(), quarantine=[dict(_BROKEN)])
    for number in range(pairs):
        pattern = patterns[number % len(patterns)]
        outcomes = [rng.choices(("right", "wrong", "unread"), (5, 4, 1))[0] for _ in range(2)]
        items = [_sample(folder, number, side, pattern, outcomes[side], draw) for side in range(2)]
        folder.samples += items
        folder.pairs.append(_pair(number, pattern, items, rng))
    return folder.score()


def _against(verdict: str, *, n: int) -> dict[str, Any]:
    difference = {"better": 0.5, "worse": -0.5, "undecided": 0.0}[verdict]
    interval = {"low": difference - 0.25, "high": difference + 0.25}
    p_value = 0.2 if verdict == "undecided" else 0.01
    test = {"fixes": 3, "regressions": 1, "p_value": p_value, "p_holm": p_value, "verdict": verdict, "n": n}
    return {"difference": difference, **interval, **test}


_BROKEN = {"path": "photos/broken.png", "reason": "truncated", "detail": "image file is truncated (3 bytes)"}


def _sample(
    folder: Folder,
    number: int,
    side: int,
    pattern: str | None,
    outcome: str,
    draw: Callable[[int, int], Image.Image],
) -> dict[str, Any]:
    buffer = io.BytesIO()
    draw(number, side).save(buffer, "JPEG", quality=85)
    sha256 = hashlib.sha256(f"{number}-{side}".encode()).hexdigest()
    folder.thumbs[sha256] = buffer.getvalue()
    target = "AB"[side]
    given = {"right": target, "wrong": "BA"[side], "unread": ""}[outcome]
    question, options = f"Is the cup on the left in scene {number}?", ["Left", "Right"]
    return {
        "doc_id": f"item-{number}-{side}",
        "doc": {
            "question": question,
            "options": options,
            "pattern": pattern,
            "pair_id": f"pair-{number}",
            "image": f"photos/{number:03d}_{'ab'[side]}.jpg",
            "image_sha256": sha256,
        },
        "target": target,
        "prompt": f"{question}\nA. Left\nB. Right",
        "resps": [[f"({given}) {options['AB'.index(given)]}." if given else "I see a table."]],
        "filtered_resps": [given],
        "outcome": outcome,
        "right": int(outcome == "right"),
        "option_scores": None,
    }


def _pair(
    number: int, pattern: str | None, items: list[dict[str, Any]], rng: random.Random
) -> dict[str, Any]:
    model, reference = rng.uniform(0.7, 1.0), rng.uniform(0.2, 0.95)
    right = [item["outcome"] == "right" for item in items]
    return {
        "pair_id": f"pair-{number}",
        "pattern": pattern,
        "item_a": items[0]["doc_id"],
        "item_b": items[1]["doc_id"],
        "image_a": items[0]["doc"]["image_sha256"],
        "image_b": items[1]["doc"]["image_sha256"],
        "similarity_model": model,
        "percentile_model": round((model - 0.7) / 0.3 * 100, 2),
        "similarity_reference": reference,
        "percentile_reference": round((reference - 0.2) / 0.75 * 100, 2),
        "suspect": model >= 0.94 and reference < 0.71,
        "right_a": right[0],
        "right_b": right[1],
        "pair_right": all(right),
    }


def _block() -> dict[str, Any]:
    return {
        "schema": 1,
        "model": {
            "id": "example/cup-vlm-1b",
            "revision": "0123456789abcdef0123456789abcdef01234567",
            "sha256": "ab" * 32,
            "architecture": "LlavaForConditionalGeneration",
            "capabilities": ["generate", "option_scores", "fed_features", "hidden_states", "train"],
            "cannot": {"edit_attention": "its attention is fused", "spatial_map": "it pools its patches"},
            "fed": {
                "encoder": "CLIPVisionModel",
                "layer": "-2",
                "pooling": "patches",
                "grid": [24, 24],
                "dim": 1024,
                "note": "the class token is dropped",
            },
            "trained": True,
        },
        "reference": {"id": "example/dino-small", "revision": None, "pooling": "cls", "sha256": "cd" * 32},
        "reference_missing": None,
        "benchmark": {
            "name": "toy-pairs",
            "source": "benchmarks/toy",
            "sha256": "ef" * 32,
            "options": [2, 2],
            "notes": ["one corrected answer"],
        },
        "asking": {"ask": "generate", "max_new_tokens": 16, "template": "{question}\n{options}"},
        "warnings": ["the chat template was missing; a plain one was used"],
    }


def _manifest() -> dict[str, Any]:
    return {
        "eyechart": "0.1.0",
        "command": ["eyechart", "exam", "example/cup-vlm-1b", "--on", "benchmarks/toy"],
        "rerun": "eyechart exam example/cup-vlm-1b --on benchmarks/toy --seed 0",
        "started": "2031-05-01T10:00:00+00:00",
        "finished": "2031-05-01T10:04:30+00:00",
        "git": {"commit": "9" * 40, "dirty": False},
        "packages": {"torch": "2.13.0", "transformers": "5.23.0"},
        "python": "3.11.9",
        "platform": "Linux-6.1-x86_64",
        "model": {
            "id": "example/cup-vlm-1b",
            "sha256": "ab" * 32,
            "dtype": "float32",
            "device": "cpu",
            "attn": "sdpa",
        },
        "reference": {"id": "example/dino-small", "pooling": "cls"},
        "seed": 0,
        "batch_size": {"value": 8, "reason": "the largest that fitted"},
    }


VOID = {"meta", "link", "img", "br", "hr", "input"}


@dataclass
class Node:
    """An element of a parsed page."""

    tag: str
    attrs: dict[str, str]
    children: list["Node | str"] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text inside, with runs of white space as one space."""
        parts = (child if isinstance(child, str) else f" {child.text} " for child in self.children)
        return " ".join("".join(parts).split())

    def inside(self) -> list["Node"]:
        """This element and all below it, in the page's order."""
        below = (node for child in self.children if isinstance(child, Node) for node in child.inside())
        return [self, *below]

    def all(self, tag: str = "", **attrs: str) -> list["Node"]:
        """The elements below with this tag and these attributes; `class_` asks for one class among several."""
        wanted = attrs.pop("class_", None)
        return [
            node
            for node in self.inside()[1:]
            if (not tag or node.tag == tag)
            and (wanted is None or wanted in node.attrs.get("class", "").split())
            and all(node.attrs.get(name) == value for name, value in attrs.items())
        ]

    def one(self, tag: str = "", **attrs: str) -> "Node":
        """The only such element."""
        found = self.all(tag, **attrs)
        assert len(found) == 1, f"{len(found)} elements {tag} {attrs}"
        return found[0]


class _Builder(HTMLParser):
    """A tree out of a page; a tag closed out of order fails the test."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.stack = [Node("#root", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice: {names}"
        node = Node(tag, {name: value or "" for name, value in attrs})
        self.stack[-1].children.append(node)
        if tag not in VOID:
            self.stack.append(node)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.stack.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.stack[-1].tag == tag, f"</{tag}> closes <{self.stack[-1].tag}>"
        self.stack.pop()

    def handle_data(self, data: str) -> None:
        self.stack[-1].children.append(data)


def read_page(path: Path) -> Node:
    """The page as a tree; every element must be closed."""
    builder = _Builder()
    builder.feed(path.read_text(encoding="utf-8"))
    builder.close()
    assert [node.tag for node in builder.stack] == ["#root"]
    return builder.stack[0]


@pytest.fixture(name="read_page")
def _read_page() -> Callable[[Path], Node]:
    return read_page


@pytest.fixture
def folder() -> Folder:
    """The usual folder of twelve pairs, to be changed before it is written."""
    return make_folder()


@pytest.fixture(name="make_folder")
def _make_folder() -> Callable[..., Folder]:
    return make_folder
