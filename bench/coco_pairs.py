"""Build a paired yes/no benchmark from COCO photos with boxes and masks.

A pair is two real photos, one question and opposite answers:

- presence: "Is there a dog in the picture?" (large and plain in one; not annotated, not captioned, and nothing
  easily taken for it in the other);
- position: "Is there a dog in the left half of the picture?" (one lies wholly in that half; in the other photo
  all there are lie wholly in the other half);
- quantity: "Are there two or more dogs in the picture?" (each plain to see, no crowds).

Only photos whose objects are annotated exhaustively are used (instances or panoptic segmentation). Written are
`questions.csv`, copies of the photos, and `ATTRIBUTION.csv` with the licence and source of every photo used.

Example:  python bench/coco_pairs.py ../shared/data/coco-open-subset /tmp/coco-pairs --pairs 60
"""

import argparse
import csv
import json
import random
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eyechart.core.errors import UserError

LARGE = 0.03
"""The least share of the photo that a thing covers where a question says it is there."""

PLAIN = 0.012
"""The least share where things are counted or it is asked where one is: each is plain to see."""

HALVES: Mapping[str, str] = {"left": "right", "right": "left", "upper": "lower", "lower": "upper"}
"""The halves of a photo, and what lies over against each."""

MOST_USES = 4
"""How often one photo may be asked about."""

PLURALS: Mapping[str, str] = {
    "person": "people", "dog": "dogs", "cat": "cats", "horse": "horses", "cow": "cows", "elephant": "elephants",
    "bear": "bears", "zebra": "zebras", "giraffe": "giraffes", "bird": "birds", "car": "cars",
    "bus": "buses", "train": "trains", "motorcycle": "motorcycles", "bicycle": "bicycles",
    "airplane": "airplanes", "boat": "boats", "umbrella": "umbrellas", "clock": "clocks", "laptop": "laptops",
    "bed": "beds", "toilet": "toilets", "sink": "sinks", "refrigerator": "refrigerators",
    "pizza": "pizzas", "cake": "cakes", "teddy bear": "teddy bears", "couch": "couches",
    "bench": "benches", "traffic light": "traffic lights",
    "stop sign": "stop signs", "surfboard": "surfboards", "skateboard": "skateboards", "kite": "kites",
    "tennis racket": "tennis rackets", "vase": "vases", "potted plant": "potted plants", "keyboard": "keyboards",
    "suitcase": "suitcases",
}  # fmt: skip
"""The categories asked about: things with an outline that people call by one name."""

UNCOUNTED = frozenset({"bed", "bench", "cake", "keyboard", "pizza", "potted plant", "sink", "traffic light"})
"""Not counted: slices, stacked or built-in things, and those that hide in the background."""

UNPLACED = frozenset({"bench", "cake", "sink"})
"""Nobody is asked where these are: they are half hidden, or painted on a wall."""

ALIKE: Sequence[frozenset[str]] = (
    frozenset({"car", "bus", "truck", "train"}),
    frozenset({"bicycle", "motorcycle"}),
    frozenset({"couch", "chair", "bed", "bench"}),
    frozenset({"laptop", "tv", "keyboard", "cell phone"}),
    frozenset({"bear", "teddy bear", "dog"}),
    frozenset({"horse", "cow", "sheep", "zebra", "giraffe", "elephant", "dog"}),
    frozenset({"cat", "dog"}),
    frozenset({"bird", "kite", "airplane"}),
    frozenset({"surfboard", "skateboard", "snowboard", "skis", "boat"}),
    frozenset({"vase", "potted plant", "cup", "bottle"}),
    frozenset({"pizza", "cake", "sandwich", "donut"}),
    frozenset({"oven", "microwave", "refrigerator", "sink", "toilet"}),
    frozenset({"suitcase", "backpack", "handbag"}),
)
"""Things one may be taken for another: where one is, the question whether another is there is not asked."""

SAID: Mapping[str, str] = {
    "person": "person|people|man|men|woman|women|boy|girl|child|children|kid|player|rider|someone|he|she|lady|guy|"
    "surfer|skater|crowd|baby|his|her|their|hand|hands|family|group",
    "airplane": "airplane|plane|jet|airplanes|planes|aircraft",
    "bed": "bed|beds|bedroom",
    "bicycle": "bicycle|bike|bicycles|bikes|cyclist",
    "bird": "bird|birds|duck|ducks|geese",
    "boat": "boat|boats|ship|ships|canoe|kayak",
    "cake": "cake|cakes|cupcake",
    "car": "car|cars|vehicle|vehicles|traffic|taxi",
    "clock": "clock|clocks|watch",
    "couch": "couch|sofa|couches|sofas",
    "cow": "cow|cows|cattle|bull",
    "keyboard": "keyboard|computer|laptop",
    "laptop": "laptop|laptops|computer|computers",
    "motorcycle": "motorcycle|motorbike|motorcycles|bike|scooter",
    "potted plant": "plant|plants|flower|flowers",
    "refrigerator": "refrigerator|fridge|kitchen",
    "sink": "sink|sinks|bathroom|kitchen",
    "suitcase": "suitcase|suitcases|luggage|bag|bags",
    "teddy bear": "teddy|bear|bears|stuffed",
    "toilet": "toilet|toilets|bathroom",
    "traffic light": "light|lights|signal",
    "vase": "vase|vases|pot|jar",
}
"""The words by which a caption gives a thing away; a category not listed goes by its own name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """One annotated object: its category, its box in pixels, and the share of the photo it covers."""

    category: str
    left: float
    top: float
    right: float
    bottom: float
    share: float
    crowd: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Photo:
    """One photo with all the things that are annotated on it, and its captions in one text."""

    file: str
    width: int
    height: int
    things: tuple[Thing, ...]
    captions: str

    def of(self, category: str) -> list[Thing]:
        """The things of a category, crowds too."""
        return [thing for thing in self.things if thing.category == category]

    @property
    def categories(self) -> frozenset[str]:
        """What there is on it."""
        return frozenset(thing.category for thing in self.things)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A question, and the photos on which its answer is plainly yes or plainly no."""

    pattern: str
    question: str
    yes: tuple[Photo, ...]
    no: tuple[Photo, ...]


def build(data_dir: Path | str, out_dir: Path | str, *, pairs: int = 60, seed: int = 0) -> Path:
    """Write the benchmark; the same arguments give the same files.

    Args:
        data_dir: the folder with `instances.json`, `panoptic.json`, `captions.json`, `images.csv` and `images/`
            (or the folder that holds it as `coco-open-subset`).
        out_dir: where to write; what was there of an earlier build is overwritten.
        pairs: how many; patterns share them as evenly as the photos allow.
        seed: of every choice.

    Returns:
        `out_dir`, ready for `eyechart exam --on`.

    Raises:
        UserError: an annotation file is missing, or the photos do not yield so many pairs.
    """
    data, out = _data(Path(data_dir)), Path(out_dir)
    rng = random.Random(seed)
    photos = read_photos(data)
    chosen = choose(asks(photos), pairs, rng)
    rows = _rows(chosen, rng)
    (out / "images").mkdir(parents=True, exist_ok=True)
    used = sorted({photo.file for _, photo, _ in chosen} | {photo.file for _, _, photo in chosen})
    for stale in (out / "images").glob("[0-9]" * 12 + ".jpg"):
        stale.unlink()
    for file in used:
        shutil.copyfile(data / "images" / file, out / "images" / file)
    _write(out / "questions.csv", rows)
    with (data / "images.csv").open(newline="", encoding="utf-8") as table:
        credits = {row["file"]: row for row in csv.DictReader(table)}
    _write(out / "ATTRIBUTION.csv", [credits[file] for file in used])
    return out


def _data(folder: Path) -> Path:
    for data in (folder, folder / "coco-open-subset"):
        if (data / "instances.json").is_file():
            return data
    raise UserError(f"no COCO photos with annotations at {folder}: instances.json is not there")


def read_photos(data: Path) -> list[Photo]:
    """The photos whose things are annotated exhaustively, in the order of their file names."""
    captions = json.loads((data / "captions.json").read_text("utf-8"))
    sizes: dict[str, tuple[int, int]] = {}
    things: defaultdict[str, list[Thing]] = defaultdict(list)
    for read in (_instances, _panoptic):
        for file, size, thing in read(data):
            sizes[file] = size
            things[file] += [thing] if thing else []
    return [
        Photo(
            file=file,
            width=sizes[file][0],
            height=sizes[file][1],
            things=tuple(things[file]),
            captions=" ".join(captions.get(file, [])).lower(),
        )
        for file in sorted(sizes)
    ]


def _instances(data: Path) -> Iterator[tuple[str, tuple[int, int], Thing | None]]:
    """File, size and one thing after another; a photo without things once with None."""
    given = json.loads((data / "instances.json").read_text("utf-8"))
    names = {category["id"]: category["name"] for category in given["categories"]}
    images = {image["id"]: image for image in given["images"]}
    for image in images.values():
        yield image["file_name"], (image["width"], image["height"]), None
    for mark in given["annotations"]:
        image = images[mark["image_id"]]
        yield (
            image["file_name"],
            (image["width"], image["height"]),
            _thing(names[mark["category_id"]], mark, image),
        )


def _panoptic(data: Path) -> Iterator[tuple[str, tuple[int, int], Thing | None]]:
    given = json.loads((data / "panoptic.json").read_text("utf-8"))
    names = {category["id"]: category["name"] for category in given["categories"] if category["isthing"]}
    images = {image["id"]: image for image in given["images"]}
    for entry in given["annotations"]:
        image = images[entry["image_id"]]
        size = (image["width"], image["height"])
        yield image["file_name"], size, None
        for mark in entry["segments_info"]:
            if mark["category_id"] in names:
                yield image["file_name"], size, _thing(names[mark["category_id"]], mark, image)


def _thing(category: str, mark: Mapping[str, Any], image: Mapping[str, Any]) -> Thing:
    left, top, wide, high = mark["bbox"]
    return Thing(
        category=category,
        left=left,
        top=top,
        right=left + wide,
        bottom=top + high,
        share=mark["area"] / (image["width"] * image["height"]),
        crowd=bool(mark["iscrowd"]),
    )


def asks(photos: Sequence[Photo]) -> list[Ask]:
    """Every question that some photos plainly answer yes and others plainly no."""
    found = []
    for category, plural in PLURALS.items():
        article = "an" if category[0] in "aeiou" else "a"
        found += [
            Ask(
                pattern="presence",
                question=f"Is there {article} {category} in the picture?",
                yes=tuple(photo for photo in photos if _there(photo, category)),
                no=tuple(photo for photo in photos if _absent(photo, category)),
            ),
            *(
                Ask(
                    pattern="position",
                    question=f"Is there {article} {category} in the {half} half of the picture?",
                    yes=tuple(photo for photo in photos if _some_in(photo, category, half)),
                    no=tuple(photo for photo in photos if _all_in(photo, category, HALVES[half])),
                )
                for half in (HALVES if category not in UNPLACED else ())
            ),
        ]
        if category not in UNCOUNTED:
            found.append(
                Ask(
                    pattern="quantity",
                    question=f"Are there two or more {plural} in the picture?",
                    yes=tuple(photo for photo in photos if _several(photo, category)),
                    no=tuple(photo for photo in photos if _one(photo, category)),
                )
            )
    return [ask for ask in found if ask.yes and ask.no]


def _there(photo: Photo, category: str) -> bool:
    return any(thing.share >= LARGE and not thing.crowd for thing in photo.of(category))


def _absent(photo: Photo, category: str) -> bool:
    """Neither it nor anything like it is annotated, and no caption speaks of it."""
    like = {category}.union(*(group for group in ALIKE if category in group))
    words = SAID.get(category, f"{category}|{PLURALS[category]}")
    return not photo.categories & like and not re.search(rf"\b(?:{words})\b", photo.captions)


def _only(photo: Photo, category: str) -> Thing | None:
    """The only thing of the category there, if it is large."""
    there = photo.of(category)
    return there[0] if len(there) == 1 and not there[0].crowd and there[0].share >= LARGE else None


def _in_half(photo: Photo, thing: Thing, half: str) -> bool:
    """Whether the whole thing lies in that half of the photo."""
    return {
        "left": thing.right <= photo.width / 2,
        "right": thing.left >= photo.width / 2,
        "upper": thing.bottom <= photo.height / 2,
        "lower": thing.top >= photo.height / 2,
    }[half]


def _some_in(photo: Photo, category: str, half: str) -> bool:
    return any(
        _in_half(photo, thing, half) and thing.share >= PLAIN and not thing.crowd
        for thing in photo.of(category)
    )


def _all_in(photo: Photo, category: str, half: str) -> bool:
    there = photo.of(category)
    inside = all(_in_half(photo, thing, half) and not thing.crowd for thing in there)
    return inside and any(thing.share >= PLAIN for thing in there)


def _one(photo: Photo, category: str) -> bool:
    return _only(photo, category) is not None


def _several(photo: Photo, category: str) -> bool:
    there = photo.of(category)
    return not any(thing.crowd for thing in there) and sum(thing.share >= PLAIN for thing in there) >= 2


Chosen = tuple[Ask, Photo, Photo]
"""A question, the photo it is true of, and the photo it is not."""


def choose(asked: Sequence[Ask], pairs: int, rng: random.Random) -> list[Chosen]:
    """So many pairs, patterns and then questions in turn, no photo more than `MOST_USES` times.

    Of the photos left for a pair, those with the most things in common are taken together.

    Raises:
        UserError: there are fewer pairs than asked for.
    """
    waiting: dict[str, list[Iterator[Chosen]]] = {}
    uses: Counter[str] = Counter()
    for ask in sorted(asked, key=lambda ask: (ask.pattern, ask.question)):
        waiting.setdefault(ask.pattern, []).append(_matches(ask, uses, rng))
    for queue in waiting.values():
        rng.shuffle(queue)
    chosen: list[Chosen] = []
    while len(chosen) < pairs and any(waiting.values()):
        for queue in waiting.values():
            pair = _next(queue) if len(chosen) < pairs else None
            if pair is not None:
                uses.update(photo.file for photo in pair[1:])
                chosen.append(pair)
    if len(chosen) < pairs:
        raise UserError(
            f"the photos yield {len(chosen)} pairs with each used {MOST_USES} times at most, not {pairs}"
        )
    return chosen


def _next(queue: list[Iterator[Chosen]]) -> Chosen | None:
    """The next pair of the first question that has one; the question then goes to the end of the queue."""
    while queue:
        matches = queue.pop(0)
        pair = next(matches, None)
        if pair is not None:
            queue.append(matches)
            return pair
    return None


def _matches(ask: Ask, uses: Counter[str], rng: random.Random) -> Iterator[Chosen]:
    """The pairs of one question: each photo once, the likest two first; who was used too often is passed over."""
    order = {photo.file: rng.random() for photo in (*ask.yes, *ask.no)}
    couples = sorted(
        ((yes, no) for yes in ask.yes for no in ask.no),
        key=lambda couple: (-_common(*couple), order[couple[0].file], order[couple[1].file]),
    )
    taken: set[str] = set()
    for yes, no in couples:
        files = {yes.file, no.file}
        if not files & taken and all(uses[file] < MOST_USES for file in files):
            taken |= files
            yield ask, yes, no


def _common(first: Photo, second: Photo) -> float:
    both = first.categories | second.categories
    return len(first.categories & second.categories) / len(both) if both else 0.0


def _rows(chosen: Sequence[Chosen], rng: random.Random) -> list[dict[str, str]]:
    """The table; in half of the pairs yes stands first among the options, in half the first photo is a yes."""
    first_yes, yes_first = _halves(len(chosen), rng), _halves(len(chosen), rng)
    rows = []
    for number, (ask, yes, no) in enumerate(chosen):
        options = "(a) Yes (b) No" if yes_first[number] else "(a) No (b) Yes"
        shown = [(yes, True), (no, False)]
        for place, (photo, true) in enumerate(shown if first_yes[number] else shown[::-1]):
            rows.append(
                {
                    "id": str(2 * number + place + 1),
                    "pair_id": str(number + 1),
                    "pattern": ask.pattern,
                    "question": ask.question,
                    "options": options,
                    "answer": "A" if true == yes_first[number] else "B",
                    "image": f"images/{photo.file}",
                }
            )
    return rows


def _halves(count: int, rng: random.Random) -> list[bool]:
    flags = [place % 2 == 0 for place in range(count)]
    rng.shuffle(flags)
    return flags


def _write(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Build from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data_dir", type=Path, help="the folder of photos and annotations")
    parser.add_argument("out_dir", type=Path, help="where to write the benchmark")
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    try:
        print(build(given.data_dir, given.out_dir, pairs=given.pairs, seed=given.seed))
    except UserError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
