"""The zoo's cards and its gate, all recomputed from the weights.

    eyechart train cards

The reference encoder and the lens's layer are chosen on selection scenes, everything is reported on test scenes. What was
computed is kept beside a hash of the weights and the scenes it was computed from, and is not computed again.
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from eyechart.core.errors import UserError
from eyechart.core.files import write_bytes, write_json
from eyechart.core.images import sha256_of
from eyechart.locate.identify_score import best_layer
from eyechart.models import load_vlm
from eyechart.models.encoders.encoder import Encoder
from eyechart.models.encoders.loading import load_encoder
from eyechart.recipes.card_bench import SCHEMA, SEED, Bench, Sizes, make_bench
from eyechart.recipes.card_clip import clip_tests, texts_of
from eyechart.recipes.card_gate import gate
from eyechart.recipes.card_language import language_tests
from eyechart.recipes.card_lens import lens_score, scene_ranks
from eyechart.recipes.card_page import gate_page, model_card
from eyechart.recipes.card_sight import (
    PATCHES,
    difference,
    encoder_features,
    read_all,
    sibling_difference,
    untrained_features,
)
from eyechart.recipes.clip import RATES
from eyechart.recipes.examine import SHOWN, examine
from eyechart.train.loop import Report
from eyechart.world.sets import set_hash

BIASED = "clip-biased"
CLIPS = {f"clip-{rates.replace('_', '-')}": rates for rates in RATES}
VISION = ("mae", "two-view")
LANGUAGE = "lm"
MIXTURES = ("imof-biased",)
"""Through the biased CLIP and the two-view encoder."""

VLMS = (*(f"llava-{rates.replace('_', '-')}" for rates in RATES), *MIXTURES)
MODELS = (*CLIPS, *VISION, LANGUAGE, *VLMS)
"""Every model of the zoo, in the order in which it is trained."""


def recompute_cards(
    *,
    zoo: Path = Path("build/zoo"),
    world: Path = Path("build/world/cards"),
    work: Path = Path("build") / "work" / "cards",
    models: Sequence[str] | None = None,
    sizes: Sizes | None = None,
    workers: int = 2,
    report: Report | None = None,
) -> Path:
    """Measure every model there is in `zoo`, and write `card.json` and `README.md` into its folder.

    Args:
        zoo: holds the models' folders; `gate.json` and `gate.md` are written there too.
        world: the scenes are rendered there once.
        work: results are kept there.
        models: only these, of `MODELS`. Of the others the gate takes the cards that lie there, where they are of these
            weights and scenes; what has none leaves it without a verdict.
        sizes: how much is measured.
        workers: processes that render.
        report: told what is done.

    Returns:
        The path of `gate.json`.

    Raises:
        UserError: a model that was named is not there, or none is.
    """
    chosen = _chosen(zoo, models)
    tell: Report = report or (lambda stage, done, total: None)
    bench = make_bench(world, work, sizes or Sizes(), workers=workers, report=tell)
    cards = _encoder_cards(zoo, [name for name in chosen if name in (*CLIPS, *VISION)], bench)
    for name in chosen:
        if name == LANGUAGE:
            cards[name] = _language_card(zoo / name, bench)
        elif name in VLMS:
            cards[name] = _vlm_card(zoo / name, bench)
    for name, card in cards.items():
        shown = _without_scenes(card)
        write_json(zoo / name / "card.json", shown, indent=None)
        write_bytes(zoo / name / "README.md", model_card(shown).encode())
    cards = _standing(zoo, [name for name in _chosen(zoo, None) if name not in chosen], bench) | cards
    reference = choose_reference({name: cards[name]["siblings"] for name in VISION if name in cards})
    found = gate(cards, reference["name"] if reference else None)
    found |= {"pooling": reference["pooling"] if reference else None}
    write_json(zoo / "gate.json", found)
    write_bytes(zoo / "gate.md", gate_page(found).encode())
    return zoo / "gate.json"


def _standing(zoo: Path, names: Sequence[str], bench: Bench) -> dict[str, dict[str, Any]]:
    """The cards of models that were measured before: of the same weights, and of the same test scenes if of any."""
    found = {}
    for name in names:
        path = zoo / name / "card.json"
        card = json.loads(path.read_text()) if path.is_file() else {}
        weights = weights_of(zoo / name)["model.safetensors"]
        test = card.get("scenes", {}).get("test", bench.test.sha256)
        if (card.get("schema"), card.get("sha256"), test) == (SCHEMA, weights, bench.test.sha256):
            found[name] = card
    return found


def choose_reference(siblings: Mapping[str, Mapping[str, Any]]) -> dict[str, str] | None:
    """The vision-only encoder and pooling that tell siblings' differences apart best; None where there is none."""
    scored = [
        (rates["all"]["value"], name, pooling)
        for name, found in siblings.items()
        for pooling, rates in found.items()
    ]
    if not scored:
        return None
    _, name, pooling = max(scored, key=lambda each: each[0])
    return {"name": name, "pooling": pooling}


def weights_of(folder: Path) -> dict[str, str]:
    """The hash of every file that a result depends on: weights, configs, tokenizers, and not the card itself."""
    aside = ("card.json", "training.json")
    paths = [path for path in sorted(folder.iterdir()) if path.suffix in (".safetensors", ".json", ".jinja")]
    return {path.name: sha256_of(path) for path in paths if path.name not in aside}


def _chosen(zoo: Path, models: Sequence[str] | None) -> list[str]:
    there = [name for name in MODELS if (zoo / name / "config.json").is_file()]
    missing = [name for name in models or () if name not in there]
    if missing or not there:
        raise UserError(
            f"{zoo} holds no model {', '.join(missing) or 'of the zoo'}; there are: {', '.join(there) or 'none'}. "
            "Train it first"
        )
    return there if models is None else [name for name in there if name in models]


def _encoder_cards(zoo: Path, names: Sequence[str], bench: Bench) -> dict[str, dict[str, Any]]:
    """The cards of all encoders, each with untrained features and its difference to the biased CLIP beside."""
    if not names:
        return {}
    untrained = bench.kept(
        "untrained",
        compute=lambda: read_all(
            untrained_features(bench.test.images), bench.tasks, bench.sizes.effort, report=bench.report
        ),
    )
    cards = {name: _encoder_card(zoo / name, bench) for name in names}
    for name, card in cards.items():
        if name != BIASED and BIASED in cards:
            card["minus_biased"] = _minus(card, cards[BIASED], bench)
    for card in cards.values():
        for pattern, rows in card["readability"].items():
            rows |= untrained[pattern]
    return cards


def _encoder_card(folder: Path, bench: Bench) -> dict[str, Any]:
    encoder, name, weights = load_encoder(str(folder)), folder.name, weights_of(folder)
    measured = bench.kept(f"encoder-{name}", weights, compute=lambda: _encoder_results(encoder, name, bench))
    return {
        "schema": SCHEMA,
        "name": name,
        "kind": "clip" if name in CLIPS else "vision",
        "sha256": weights["model.safetensors"],
        "scenes": {"test": bench.test.sha256, "selection": bench.selection.sha256},
        "folds": bench.sizes.effort.folds,
        **measured,
    }


def _encoder_results(encoder: Encoder, name: str, bench: Bench) -> dict[str, Any]:
    features = encoder_features(encoder, bench.test.images)
    result: dict[str, Any] = {"pooling": encoder.default_pooling}
    if name in CLIPS:
        rates = {rate.replace("_", "-"): RATES[rate] for rate in dict.fromkeys((CLIPS[name], "told_all"))}
        result["clip"] = clip_tests(features["projected"], texts_of(encoder), bench.test, rates)
    result["readability"] = read_all(features, bench.tasks, bench.sizes.effort, report=bench.report)
    shown = encoder_features(encoder, bench.selection.images)
    moved = encoder_features(encoder, bench.crossed)
    result["siblings"] = {
        pooling: {
            pattern: rate.to_dict()
            for pattern, rate in sibling_difference(shown[pooling], moved[pooling], bench.selection).items()
        }
        for pooling in encoder.poolings
    }
    return result


def _minus(card: Mapping[str, Any], biased: Mapping[str, Any], bench: Bench) -> dict[str, dict[str, Any]]:
    """By pattern: fed patches by either probe, and each encoder's default pooling by the linear one."""
    found: dict[str, dict[str, Any]] = {}
    for task in bench.tasks:
        own, other = card["readability"][task.pattern], biased["readability"][task.pattern]
        pairs = {name: (name, name) for name in own if name.startswith(PATCHES)}
        pairs["pooled linear"] = (f"{card['pooling']} linear", f"{biased['pooling']} linear")
        found[task.pattern] = {
            name: difference(own[first], other[second], task.task.groups)
            for name, (first, second) in pairs.items()
        }
    return found


def _language_card(folder: Path, bench: Bench) -> dict[str, Any]:
    weights = weights_of(folder)
    tests = bench.kept(
        "language", weights, compute=lambda: language_tests(folder, rows=bench.sizes.texts, seed=SEED)
    )
    return {
        "schema": SCHEMA,
        "name": folder.name,
        "kind": "language",
        "sha256": weights["model.safetensors"],
        "language": tests,
    }


def _vlm_card(folder: Path, bench: Bench) -> dict[str, Any]:
    vlm, weights = load_vlm(str(folder), device="cpu"), weights_of(folder)

    def examined(shown: str) -> dict[str, Any]:
        found = examine(vlm, bench.test.folder, shown=shown, report=bench.report).to_dict()
        return {key: value for key, value in found.items() if key not in ("model", "seconds")}

    asked = {
        shown: bench.kept(f"vlm-{folder.name}-{shown}", weights, compute=partial(examined, shown))
        for shown in SHOWN
    }

    def lens() -> dict[str, Any]:
        layer = best_layer(scene_ranks(vlm, bench.lens_selection, report=bench.report))
        return lens_score(scene_ranks(vlm, bench.lens_test, report=bench.report), layer)

    sets = [set_hash(each.folder) for each in (bench.lens_selection, bench.lens_test)]
    return {
        "schema": SCHEMA,
        "name": folder.name,
        "kind": "mixture" if folder.name in MIXTURES else "vlm",
        "sha256": weights["model.safetensors"],
        "scenes": {"test": bench.test.sha256},
        "vlm": asked,
        "lens": bench.kept(f"lens-{folder.name}", weights, sets, compute=lens),
    }


def _without_scenes(value: Any) -> Any:
    """A card without the scene-by-scene results, which only comparisons need."""
    if not isinstance(value, dict):
        return value
    return {key: _without_scenes(each) for key, each in value.items() if key != "right"}
