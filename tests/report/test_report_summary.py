"""What the plain-words summary says, and what it leaves unsaid."""

import pytest

from eyechart.report import summary_sentences, write_report


def written(folder, tmp_path, read_page):
    return read_page(write_report(folder.write(tmp_path / "run")))


def section(root, name):
    return root.one("section", id=name)


def test_an_untrained_model_is_named_as_such_before_any_number(folder, tmp_path, read_page):
    folder.block["model"]["trained"] = False
    root = written(folder, tmp_path, read_page)
    text = section(root, "summary").text
    assert text.startswith("In plain words This model has learnt nothing. Its weights are random numbers")
    assert "what a report looks like" in root.one(class_="banner").text
    assert summary_sentences(tmp_path / "run")[0].startswith("This model has learnt nothing.")


def test_a_trained_model_has_no_such_banner(folder, tmp_path, read_page):
    assert not written(folder, tmp_path, read_page).all(class_="banner")


@pytest.mark.parametrize(
    ("above", "words"),
    [
        ("above", "That is better than guessing, which gets 25%"),
        ("at", "Guessing gets 25%, which lies inside the interval"),
        ("below", "That is worse than guessing, which gets 25%"),
    ],
)
def test_the_summary_says_what_the_score_means_beside_chance(folder, tmp_path, read_page, above, words):
    folder.block["score"]["above_chance"] = above
    assert words in section(written(folder, tmp_path, read_page), "summary").text


def test_the_summary_tells_suspects_unread_and_the_favourite(folder, tmp_path, read_page):
    score, find = folder.block["score"], folder.block["find"]
    score["unread"] = {"value": 0.25, "low": 0.1, "high": 0.45, "hits": 6, "n": 24, "level": 0.95}
    share = {"value": 0.8, "low": 0.6, "high": 0.9, "hits": 16, "n": 20, "level": 0.95}
    score["favourite_option"] = {"label": "A", "share": share}
    find["suspects"].update(hits=4, n=12)
    find["right_suspects"] = {"value": 0.25, "low": 0.05, "high": 0.7, "hits": 1, "n": 4, "level": 0.95}
    find["right_others"] = {"value": 0.5, "low": 0.2, "high": 0.8, "hits": 4, "n": 8, "level": 0.95}
    text = section(written(folder, tmp_path, read_page), "summary").text
    assert "takes 4 of 12 pairs for nearly the same while example/dino-small tells them apart" in text
    assert "got 1 of 4 right" in text
    assert "of the other pairs 4 of 8" in text
    assert "p = 0.041 for the difference" in text
    assert "From 6 of 24 replies no option could be read" in text
    assert "as much as of what it sees" in text
    assert "Its favourite option is A , given in 16 of 20 replies" in text
    assert "a lean that strong loses pairs by itself" in text
    assert "Read with care: 1 warning and 1 input left out" in text


def test_the_summary_is_silent_about_what_did_not_happen(folder, tmp_path, read_page):
    score = folder.block["score"]
    score["unread"].update(value=0.0, hits=0)
    score["favourite_option"] = None
    folder.block["warnings"], folder.block["benchmark"]["quarantined"], folder.quarantine = [], 0, []
    text = section(written(folder, tmp_path, read_page), "summary").text
    for word in ("no option could be read", "favourite", "Read with care"):
        assert word not in text


def test_suspects_without_others_are_told_without_a_comparison(folder, tmp_path, read_page):
    folder.block["find"].update(right_others=None, p_value=None)
    assert "there are no other pairs" in section(written(folder, tmp_path, read_page), "summary").text


def test_no_suspects_at_all_leave_no_empty_chart(folder, tmp_path, read_page):
    folder.block["find"].update(right_suspects=None, p_value=None)
    root = written(folder, tmp_path, read_page)
    assert "Of these suspects" not in root.text
    assert [node.text for node in section(root, "suspects").all(class_="name")] == ["other pairs"]


def test_the_sentences_for_a_terminal_are_those_of_the_page(folder, tmp_path, read_page):
    root = written(folder, tmp_path, read_page)
    sentences = summary_sentences(tmp_path / "run")
    said = "".join(node.text for node in section(root, "summary").one(class_="lead").all("p"))
    assert len(sentences) >= 5
    for sentence in sentences:
        assert "".join(sentence.split()) in "".join(said.split())


def test_where_most_replies_are_unread_the_score_is_not_set_against_chance(folder, tmp_path, read_page):
    folder.block["score"]["unread"].update(value=0.9, hits=20)
    folder.block["score"]["above_chance"] = "below"
    folder.block["asking"]["ask"] = "generate"
    text = section(written(folder, tmp_path, read_page), "summary").text
    assert "guessing" not in text
    assert "--ask options" in text


def test_an_even_choice_has_no_favourite(folder, tmp_path, read_page):
    share = {"value": 0.5, "low": 0.3, "high": 0.7, "hits": 10, "n": 20, "level": 0.95}
    folder.block["score"]["favourite_option"] = {"label": "A", "share": share}
    assert "favourite" not in section(written(folder, tmp_path, read_page), "summary").text


def test_what_was_left_out_and_an_adapter_are_told(folder, tmp_path, read_page):
    folder.block["benchmark"]["quarantined"] = 3
    folder.block["model"]["adapter"] = {"id": "adapters/lora", "sha256": "0"}
    said = " ".join(summary_sentences(written_to(folder, tmp_path)))
    assert "3 entries of the benchmark could not be used" in said
    assert "with the adapter lora" in said or "with the adapter adapters/lora" in said


def written_to(folder, tmp_path):
    run = tmp_path / "run"
    write_report(folder.write(run))
    return run
