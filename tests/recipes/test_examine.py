"""Examining a VLM on a rendered benchmark: an oracle is right everywhere, one that never looks by chance only."""

import json
import random
import shutil
from collections import Counter

import pytest

from eyechart.core.errors import UserError
from eyechart.core.images import open_image
from eyechart.models import load_vlm
from eyechart.recipes.examine import examine, family_of, table
from eyechart.score import build_prompt, load_benchmark
from eyechart.train.export import export
from eyechart.train.vlm import join_towers
from eyechart.world.draw import draw_contrast, draw_facts
from eyechart.world.facts import PATTERNS
from eyechart.world.questions import question_for, questions
from eyechart.world.sets_pairs import render_pairs
from eyechart.world.sets_plan import PairPlan
from zoo_parts import save_small_clip, save_small_language, small_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("pairs") / "bench"
    return render_pairs(place, PairPlan(split="selection", pairs=2, seed=3), size=36, workers=1)


@pytest.fixture(scope="module")
def vlm(tmp_path_factory):
    place, tokenizer = tmp_path_factory.mktemp("vlm"), small_tokenizer()
    made = join_towers(
        save_small_clip(place / "clip", tokenizer, side=36), save_small_language(place / "lm", tokenizer)
    )
    return load_vlm(str(export(made[0], place / "llava", made[1])), device="cpu")


def answers_of(folder):
    """The right letter for what an item is asked with: its text and its picture, or its scene in words."""
    lines = (folder / "facts.jsonl").read_text().splitlines()
    scenes = {row["id"]: row["told"] for row in map(json.loads, lines)}
    found = {}
    for item in load_benchmark(folder).items:
        asked, letter = build_prompt(item).text, "AB"[item.answer]
        found[asked, item.image.read_bytes()] = letter
        found[f"{scenes[item.id]}\n{asked}", b""] = letter
    return found


def test_an_oracle_is_right_on_every_pair_by_pattern_and_family(folder, vlm, monkeypatch):
    pictures = {}
    for item in load_benchmark(folder).items:
        pictures[open_image(item.image).image.tobytes()] = item.image.read_bytes()
    known = answers_of(folder)

    def knows(prompts, *, max_new_tokens):
        return [known[one.text, pictures[one.images[0].tobytes()] if one.images else b""] for one in prompts]

    monkeypatch.setattr(vlm, "generate", knows)
    for shown in ("picture", "told"):
        found = examine(vlm, folder, shown=shown, batch=5)
        assert (found.summary.score.pairs.hits, found.summary.score.pairs.n) == (18, 18)
        assert {score.pattern: score.pairs.hits for score in found.summary.patterns} == dict.fromkeys(
            PATTERNS, 2
        )
        assert sum(rate.n for rate in found.families.values()) == 18
        assert "other" not in {family for _, family in found.families}
        assert found.to_dict()["shown"] == shown
        json.dumps(found.to_dict())


def test_who_sees_blank_pictures_gets_no_pair_and_half_the_items(folder, vlm, monkeypatch):
    seen = []

    def says_a(prompts, *, max_new_tokens):
        seen.extend(one.images[0].getcolors() for one in prompts)
        return ["A"] * len(prompts)

    monkeypatch.setattr(vlm, "generate", says_a)
    score = examine(vlm, folder, shown="blank").summary.score
    assert (score.pairs.hits, score.images.hits, score.images.n) == (0, 18, 36)
    assert seen == [[(36 * 36, (127, 127, 127))]] * 36


def test_replies_do_not_depend_on_the_batch(folder, vlm):
    one, many = (examine(vlm, folder, batch=batch, template="number", limit=9) for batch in (1, 7))
    assert one.summary == many.summary
    assert one.families == many.families
    assert one.summary.score.pairs.n == 9


def test_progress_is_told(folder, vlm, monkeypatch):
    told = []
    monkeypatch.setattr(vlm, "generate", lambda prompts, **_: ["A"] * len(prompts))
    examine(vlm, folder, batch=20, report=lambda *said: told.append(said))
    assert told == [("questions", 20, 36), ("questions", 36, 36)]


def test_every_question_of_the_world_is_known_by_its_family():
    for pattern in PATTERNS:
        rng = random.Random(pattern)
        for _ in range(60):
            question = question_for(pattern, *draw_contrast(pattern, rng), rng)
            assert family_of(pattern, question.text) == question.family
    rng = random.Random(0)
    asked = [question for _ in range(150) for question in questions(draw_facts(rng), rng)]
    wrong = Counter((one.family, one.text) for one in asked if family_of(one.pattern, one.text) != one.family)
    assert not wrong
    assert family_of("color", "Is this the real life?") == "other"


def test_the_table_sets_models_side_by_side(folder, vlm, monkeypatch):
    monkeypatch.setattr(vlm, "generate", lambda prompts, **_: ["B"] * len(prompts))
    found = examine(vlm, folder)
    lines = table({"biased": found, "told-all": found}).splitlines()
    assert lines[0] == "| pattern | biased | told-all |"
    assert len(lines) == 2 + len(PATTERNS) + 3
    assert lines[-3].startswith("| all pairs | 0% [0%, ")
    assert lines[-2].startswith("| all items | 50% [")
    assert lines[-1] == "| unread | 0 | 0 |"


def test_what_cannot_be_shown_or_compared_is_said(folder, vlm, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"no way to show a scene named 'blanc'. Did you mean 'blank'"):
        examine(vlm, folder, shown="blanc")
    shutil.copytree(folder, tmp_path / "untold", ignore=shutil.ignore_patterns("facts.jsonl"))
    with pytest.raises(UserError, match=r"untold has no facts\.jsonl, so its scenes cannot be told"):
        examine(vlm, tmp_path / "untold", shown="told")
    with pytest.raises(ValueError, match="0 examinations"):
        table({})
    monkeypatch.setattr(vlm, "generate", lambda prompts, **_: ["A"] * len(prompts))
    few, all_of_it = examine(vlm, folder, limit=3), examine(vlm, folder)
    with pytest.raises(ValueError, match=r"of different patterns: .*'orientation'"):
        table({"few": few, "all": all_of_it})
