"""The cards of a whole zoo in small: everything from the weights, kept between runs; the gate on planted cards; shipping."""

import json

import pytest
import torch

from eyechart.core.errors import UserError
from eyechart.core.files import write_json
from eyechart.recipes import cards as recipe
from eyechart.recipes.card_bench import Sizes
from eyechart.recipes.card_gate import gate
from eyechart.recipes.card_language import language_tests, token_losses
from eyechart.recipes.card_page import gate_page
from eyechart.recipes.card_sight import Effort
from eyechart.recipes.cards import MODELS, choose_reference, recompute_cards
from eyechart.recipes.tokenizer import make_tokenizer
from eyechart.recipes.zoo import Step, make_zoo, ship, steps
from eyechart.train.export import export
from eyechart.train.tokens import load_tokenizer
from eyechart.train.towers import TowerShape
from eyechart.train.two_view import TwoView, TwoViewSettings, export_two_view
from eyechart.train.vlm import join_towers
from eyechart.world.facts import PATTERNS
from zoo_parts import save_small_clip, save_small_language

TINY = Sizes(
    test_pairs=3,
    selection_pairs=2,
    lens_selection=3,
    lens_test=4,
    texts=3,
    picture=96,
    effort=Effort(scenes=12, folds=2, attentive=False),
)
SHAPE = TowerShape(
    image_size=96,
    patch_size=12,
    hidden_size=16,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=32,
)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """Every model of the zoo but two, of random weights."""
    folder = tmp_path_factory.mktemp("zoo") / "zoo"
    tokenizer = load_tokenizer(make_tokenizer(folder / "tokenizer"))
    for number, name in enumerate(("clip-biased", "clip-told-all")):
        save_small_clip(folder / name, tokenizer, side=96, seed=number)
    export_two_view(TwoView(SHAPE, TwoViewSettings()), folder / "two-view")
    save_small_language(folder / "lm", tokenizer)
    model, processor = join_towers(folder / "clip-biased", folder / "lm")
    export(model, folder / "llava-biased", processor)
    return folder


def recompute(zoo, **options):
    base = zoo.parent
    return recompute_cards(
        zoo=zoo, world=base / "world", work=base / "work", sizes=TINY, workers=1, **options
    )


@pytest.fixture(scope="module")
def cards(zoo):
    torch.set_num_threads(1)
    recompute(zoo)
    return {path.parent.name: json.loads(path.read_text()) for path in zoo.glob("*/card.json")}


def numbers(value, path=()):
    """Every mapping with a `value` in a card, by its path."""
    if isinstance(value, dict):
        if "value" in value:
            yield path, value
        for key, each in value.items():
            yield from numbers(each, (*path, key))
    elif isinstance(value, list):
        for place, each in enumerate(value):
            yield from numbers(each, (*path, place))


@pytest.mark.slow
def test_every_number_of_every_card_has_an_interval_and_a_count(cards):
    assert set(cards) == {"clip-biased", "clip-told-all", "two-view", "lm", "llava-biased"}
    for card in cards.values():
        found = list(numbers(card))
        assert found
        for path, number in found:
            assert number["low"] <= number["value"] <= number["high"], path
            assert number["n"] > 0, path
        assert len(card["sha256"]) == 64


@pytest.mark.slow
def test_encoders_are_read_beside_controls_and_set_against_the_biased_one(cards):
    for name in ("clip-biased", "two-view"):
        rows = cards[name]["readability"]
        assert set(rows) == set(PATTERNS)
        for row in rows.values():
            assert {"patches linear", "raw pixels linear", "gradient histograms linear"} < set(row)
            assert all("right" not in each for each in row.values())
    assert "minus_biased" not in cards["clip-biased"]
    assert set(cards["two-view"]["minus_biased"]) == set(PATTERNS)
    assert "clip" not in cards["two-view"]
    assert set(cards["clip-told-all"]["clip"]["retrieval"]) == {"told-all"}
    assert set(cards["clip-biased"]["clip"]["retrieval"]) == {"biased", "told-all"}


@pytest.mark.slow
def test_the_vlm_is_asked_three_ways_and_its_lens_is_read(cards):
    card = cards["llava-biased"]
    assert set(card["vlm"]) == {"picture", "blank", "told"}
    assert card["vlm"]["blank"]["score"]["pairs"]["n"] == 3 * len(PATTERNS)
    assert card["lens"]["layer"] in range(4)
    assert len(card["lens"]["by_layer"]) == 4


@pytest.mark.slow
def test_pages_are_written_and_name_no_place(zoo, cards):
    for name, card in cards.items():
        page = (zoo / name / "README.md").read_text()
        assert page.startswith("---\nlicense: apache-2.0")
        assert card["sha256"] in page
        assert str(zoo.parent) not in page + json.dumps(card)
        for table in (block for block in page.split("\n\n") if block.startswith("| ")):
            widths = {line.count("|") for line in table.strip().splitlines()}
            assert len(widths) == 1, table
    verdict = json.loads((zoo / "gate.json").read_text())
    assert verdict["reference"] == "two-view"
    assert verdict["met"] is None, "three pairs a pattern are no evidence"
    assert (zoo / "gate.md").read_text().count("\n| ") == 5


@pytest.mark.slow
def test_what_was_computed_is_not_computed_again(zoo, cards, monkeypatch):
    before = (zoo / "two-view" / "card.json").read_bytes()

    def never(*args, **kwargs):
        raise AssertionError("computed again")

    for name in ("encoder_features", "examine", "scene_ranks", "language_tests"):
        monkeypatch.setattr(recipe, name, never)
    recompute(zoo)
    assert (zoo / "two-view" / "card.json").read_bytes() == before
    recompute(zoo, models=["lm"])


@pytest.mark.slow
def test_the_gate_takes_the_cards_of_models_that_are_not_measured_again(zoo, cards):
    whole = json.loads((zoo / "gate.json").read_text())
    recompute(zoo, models=["llava-biased"])
    assert json.loads((zoo / "gate.json").read_text()) == whole
    write_json(zoo / "two-view" / "card.json", cards["two-view"] | {"sha256": "of other weights"})
    recompute(zoo, models=["llava-biased"])
    assert json.loads((zoo / "gate.json").read_text())["reference"] is None
    write_json(zoo / "two-view" / "card.json", cards["two-view"])
    write_json(zoo / "gate.json", whole)


def test_a_model_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="holds no model of the zoo; there are: none"):
        recompute_cards(zoo=tmp_path)
    (tmp_path / "lm").mkdir()
    (tmp_path / "lm" / "config.json").write_text("{}")
    with pytest.raises(UserError, match="holds no model mae; there are: lm"):
        recompute_cards(zoo=tmp_path, models=["lm", "mae"])


@pytest.mark.slow
def test_perplexity_is_that_of_the_tokens_and_its_interval_holds_it(tmp_path):
    tokenizer = load_tokenizer(make_tokenizer(tmp_path / "tokenizer"))
    folder = save_small_language(tmp_path / "lm", tokenizer)
    found = language_tests(folder, rows=4, seed=1)
    known = found["perplexity"]
    assert known["low"] < known["value"] < known["high"]
    assert known["clusters"] == found["texts"] == 4
    assert known["value"] > 0.5 * len(tokenizer), "weights are random"
    assert 10 < found["unigram"] < len(tokenizer)
    assert found["answers"]["hits"] < found["answers"]["n"]
    assert language_tests(folder, rows=4, seed=1) == found

    class Certain(torch.nn.Module):
        def forward(self, input_ids, use_cache):
            rows = torch.nn.functional.one_hot(input_ids.roll(-1, dims=1), 50) * 100.0
            return type("Out", (), {"logits": rows.float()})

    assert token_losses(Certain(), {"input_ids": torch.tensor([[3, 4, 5, 0]])}, pad_id=0) == [0.0, 0.0]


def rates(low, n=200):
    return {"value": low + 0.05, "low": low, "high": low + 0.1, "n": n, "hits": 1, "level": 0.95}


def planted(seen, told, *, readable=3, ratio=6.0, n=200):
    """Cards in which the first patterns are seen."""

    def vlm(count):
        return {
            "vlm": {
                "picture": {
                    "patterns": [
                        {"pattern": pattern, "pairs": rates(0.3 if place < count else 0.2, n)}
                        for place, pattern in enumerate(PATTERNS)
                    ]
                }
            },
            "lens": {"ratio": {"value": ratio, "low": ratio - 1, "high": ratio + 1, "n": 50}, "layer": 3},
        }

    minus = {
        pattern: {"patches linear": {**rates(0.01 if place < readable else -0.2), "n": 400}}
        for place, pattern in enumerate(PATTERNS)
    }
    return {"llava-biased": vlm(seen), "llava-told-all": vlm(told), "mae": {"minus_biased": minus}}


@pytest.mark.parametrize(
    ("plan", "verdicts"),
    [
        ({"seen": 7, "told": 9}, [True, True, True, True]),
        ({"seen": 8, "told": 9}, [False, True, False, True]),
        ({"seen": 4, "told": 9}, [False, True, True, True]),
        ({"seen": 5, "told": 6, "readable": 2}, [True, False, False, True]),
        ({"seen": 5, "told": 7, "ratio": 4.9}, [True, True, True, False]),
        ({"seen": 5, "told": 7, "n": 199}, [None, True, None, True]),
    ],
)
def test_the_gate_holds_each_condition_to_its_number(plan, verdicts):
    found = gate(planted(**plan), "mae")
    assert [condition["met"] for condition in found["conditions"]] == verdicts
    assert found["met"] is (None if None in verdicts else all(verdicts))
    lines = gate_page(found).splitlines()
    said = {True: "yes", False: "no", None: "not measured"}
    assert [line.split(" | ")[1] for line in lines[2:]] == [said[verdict] for verdict in verdicts]


def test_what_was_not_measured_has_no_verdict():
    assert [one["met"] for one in gate({}, None)["conditions"]] == [None] * 4


def test_the_reference_is_the_best_of_all_encoders_and_poolings():
    def score(value):
        return {"all": {"value": value}}

    siblings = {
        "mae": {"cls": score(0.6), "mean_patch": score(0.7)},
        "two-view": {"cls": score(0.65), "mean_patch": score(0.5)},
    }
    assert choose_reference(siblings) == {"name": "mae", "pooling": "mean_patch"}
    assert choose_reference({}) is None


def test_steps_that_are_done_are_passed_over(tmp_path):
    taken = []

    def step(name, *, makes=True, works=True):
        path = tmp_path / name / "model.safetensors"

        def run():
            taken.append(name)
            if makes and works:
                path.parent.mkdir()
                path.write_bytes(b"")

        return Step(name=name, makes=path if makes else None, run=run)

    todo = [step("one"), step("two"), step("always", makes=False)]
    assert make_zoo(todo, only=["two"]) == ["two"]
    assert make_zoo(todo) == ["one", "always"]
    assert make_zoo(todo) == ["always"]
    assert taken == ["two", "one", "always", "always"]
    with pytest.raises(UserError, match=r"no step of the zoo named 'tow'. Did you mean 'two'"):
        make_zoo(todo, only=["tow"])
    with pytest.raises(RuntimeError, match=r"the step lazy has ended without making .*lazy"):
        make_zoo([step("lazy", works=False)])


def test_the_zoo_is_made_in_an_order_in_which_everything_is_there(tmp_path):
    names = [step.name for step in steps(world=tmp_path, work=tmp_path, zoo=tmp_path)]
    assert set(MODELS) < set(names)
    assert names[-1] == "cards"
    assert [name for name in names if name in MODELS] == list(MODELS)
    assert not any(step.done for step in steps(world=tmp_path, work=tmp_path, zoo=tmp_path))


def whole_zoo(folder, *, size=1000):
    for name in MODELS:
        for file in ("model.safetensors", "config.json", "card.json", "README.md"):
            path = folder / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b" " * size)
        (folder / name / "checkpoint-5").mkdir()
        (folder / name / "checkpoint-5" / "optimizer.pt").write_bytes(b" " * size)
    write_json(folder / "gate.json", {})
    return folder


def test_shipping_takes_models_and_cards_and_nothing_else(tmp_path):
    zoo, into = whole_zoo(tmp_path / "zoo"), tmp_path / "models"
    (into / "mae").mkdir(parents=True)
    (into / "mae" / "old.bin").write_bytes(b"old")
    total = ship(zoo, into)
    files = [path for path in into.rglob("*") if path.is_file()]
    assert len(files) == 4 * len(MODELS) + 1
    assert total == sum(path.stat().st_size for path in files)
    assert {path.parent.name for path in files} == {*MODELS, "models"}


def test_a_zoo_that_is_too_large_or_lacks_something_is_not_shipped(tmp_path):
    zoo, into = whole_zoo(tmp_path / "zoo", size=1_000_000), tmp_path / "models"
    with pytest.raises(UserError, match=r"the zoo has 40.0 MB, of 30 at most: clip-biased 4.0, "):
        ship(zoo, into, largest=30_000_000)
    (zoo / "mae" / "card.json").unlink()
    with pytest.raises(UserError, match=r"lacks mae.card.json: train what is missing"):
        ship(zoo, into)
    assert not into.exists()


def test_sizes_are_large_enough_for_the_gate():
    assert Sizes().test_pairs >= 200
    assert Sizes().effort.scenes >= 400
