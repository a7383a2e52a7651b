"""The correlation study: from scenes to figures, gone on where it stopped, and what is written into the page."""

import json

import pytest

from eyechart.core.errors import UserError
from eyechart.recipes import correlation_study
from eyechart.recipes.correlation_study import (
    END,
    START,
    Seen,
    correlated,
    main,
    picture,
    raw,
    spliced,
    study,
    tables,
)
from eyechart.world.facts import PATTERNS


def made(name, encoder, model):
    """A CLIP and a VLM that are right on so many of 10 pairs of each pattern."""
    matches, answers = [], []
    for place, pattern in enumerate(PATTERNS):
        for k in range(10):
            hashes = [f"{pattern}{k}a", f"{pattern}{k}b"]
            right = int(k < encoder[place])
            matches.append(
                {
                    "doc_id": f"{pattern}-{k}",
                    "doc": {"images_sha256": hashes, "pattern": pattern},
                    **dict.fromkeys(("text_to_image", "image_to_text", "group"), right),
                }
            )
            for side, digest in zip("ab", hashes, strict=True):
                good = k < model[place]
                answers.append(
                    {
                        "doc_id": f"{pattern}-{k}{side}",
                        "doc": {"pair_id": f"{pattern}-{k}", "pattern": pattern, "image_sha256": digest},
                        "outcome": "right" if good else "unread",
                        "right": int(good),
                    }
                )
    return Seen(name=name, matches=tuple(matches), answers=tuple(answers), sha256=("0" * 64, "1" * 64))


@pytest.fixture(scope="module")
def seen():
    up, down = list(range(1, 10)), list(range(9, 0, -1))
    return [
        made("biased", up, up),
        made("told-all", up, down),
        made("permuted", down, [5, 4, 6, 5, 4, 6, 5, 4, 6]),
    ]


def test_planted_correlations_are_found_and_said(seen):
    found = correlated(seen, resamples=100)
    assert [round(one.pearson.value, 3) for one in found.own][:2] == [1, -1]
    assert found.others["clip-permuted", "llava-told-all"] == 1
    assert found.within["clip-biased", "llava-biased"].value == pytest.approx(1)
    assert found.ways["group"]["llava-biased"] == 1
    text = tables(seen, found)
    assert "| Pearson, own CLIP (Fisher) | 1.00 [1.00, 1.00] | -1.00 [-1.00, -1.00] |" in text
    assert "| llava-biased | 90 | 45 | 0 | 0 | 45 | 1.00" in text
    assert text.count("\n### ") == 5
    assert "llava-told-all over clip-told-all" in picture(found)
    plain = raw(seen, found)
    assert json.loads(json.dumps(plain)) == plain
    assert len(plain["models"][0]["encoder"]["group"]) == 90
    assert plain["models"][0]["unread"] == 90


def test_figures_go_between_the_marks_and_leave_the_rest():
    page = f"# Title\n\n{START}\nold\n{END}\n\nEnd.\n"
    assert spliced(page, "new") == f"# Title\n\n{START}\n\nnew\n\n{END}\n\nEnd.\n"
    assert spliced(spliced(page, "new"), "newer") == spliced(page, "newer")
    for broken in ("# Title\n", f"{END}\n{START}\n"):
        with pytest.raises(UserError, match="the page has no place for figures"):
            spliced(broken, "new")


@pytest.mark.slow
def test_the_study_runs_and_goes_on_without_asking_again(tmp_path, monkeypatch):
    told = []
    first = study(
        tmp_path / "data", names=("biased", "told-all"), pairs=4, report=lambda *what: told.append(what)
    )
    assert ("llava-biased", 72, 72) in told

    def never(name):
        raise AssertionError(f"{name} was loaded again")

    monkeypatch.setattr(correlation_study, "load_vlm", never)
    monkeypatch.setattr(correlation_study, "load_encoder", never)
    again = study(tmp_path / "data", names=("biased", "told-all"), pairs=4)
    assert again == first
    monkeypatch.setattr(correlation_study, "study", lambda data: first)
    main(tmp_path / "data", tmp_path / "docs")
    assert {path.name for path in (tmp_path / "docs").iterdir()} == {
        "correlation.json",
        "correlation.md",
        "correlation.svg",
    }
