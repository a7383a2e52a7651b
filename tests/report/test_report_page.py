"""The page as a reader gets it: what it says, in which order, and that nothing in it can call home or run."""

import json
import re
import shutil
from datetime import datetime
from itertools import pairwise

import pytest

from eyechart.report import page, write_report

EVIL = '<script>alert("x")</script><img src=http://evil.example/x onerror=alert(1)>'


def written(folder, tmp_path, read_page, name="run"):
    return read_page(write_report(folder.write(tmp_path / name)))


def section(root, name):
    return root.one("section", id=name)


def test_the_page_is_one_file_that_calls_nobody_and_runs_nothing(folder, tmp_path, read_page):
    root = written(folder, tmp_path, read_page)
    for node in root.inside():
        assert node.tag not in {"script", "iframe", "object", "embed", "form", "base", "video", "audio"}
        assert not [name for name in node.attrs if name.startswith("on")]
        for name in ("src", "href", "xlink:href", "srcset", "action", "poster", "background"):
            value = node.attrs.get(name, "#")
            assert value.startswith("#") or value.startswith("data:"), f"{node.tag} {name}={value[:60]}"
        assert "url(" not in node.attrs.get("style", "")
    style = root.one("style").text
    assert "url(" not in style
    assert "@import" not in style
    assert "@font-face" not in style
    policy = root.one("meta", **{"http-equiv": "Content-Security-Policy"}).attrs["content"]
    assert "default-src 'none'" in policy


def test_the_order_is_words_pictures_tables_model_data_run_terms(folder, tmp_path, read_page):
    root = written(folder, tmp_path, read_page)
    order = [node.attrs["id"] for node in root.all("section")]
    assert order == ["summary", "failures", "patterns", "suspects", "model", "data", "run", "terms"]
    assert root.one("h1").text == "example/cup-vlm-1b on toy-pairs"


def test_what_models_and_files_say_is_text_and_never_markup(folder, tmp_path, read_page):
    sample = folder.samples[0]
    for item in folder.samples[:2]:
        item["doc"].update(question=f"q {EVIL}", options=[f"o {EVIL}", "Right"], image=f"photos/{EVIL}.jpg")
        item["resps"] = [[f"r {EVIL}"]]
    sample["outcome"], folder.pairs[0]["right_a"], folder.pairs[0]["pair_right"] = "wrong", False, False
    folder.pairs[0].update(pair_id=f"pair {EVIL}", pattern=f"p {EVIL}")
    for item in folder.samples[:2]:
        item["doc"].update(pair_id=f"pair {EVIL}", pattern=f"p {EVIL}")
    folder.score()
    block = folder.block
    block["model"].update(id=f"m {EVIL}", architecture=f"a {EVIL}", cannot={"generate": f"c {EVIL}"})
    block["model"]["fed"]["note"] = f"f {EVIL}"
    block["reference"]["id"] = f"ref {EVIL}"
    block["benchmark"].update(name=f"b {EVIL}", source=f"s {EVIL}", notes=[f"n {EVIL}"])
    block["warnings"], block["asking"]["template"] = [f"w {EVIL}"], f"t {EVIL}"
    folder.quarantine[0].update(path=f"qp {EVIL}", reason=f"qr {EVIL}", detail=f"qd {EVIL}")
    folder.manifest.update(rerun=f"run {EVIL}", platform=f"pl {EVIL}", packages={"torch": f"pv {EVIL}"})
    root = written(folder, tmp_path, read_page)
    assert not root.all("script")
    assert not [
        node for node in root.all("img") if not node.attrs["src"].startswith("data:image/jpeg;base64,")
    ]
    assert not [node for node in root.inside() if any(name.startswith("on") for name in node.attrs)]
    for mark in (
        "q",
        "o",
        "r",
        "pair",
        "p",
        "a",
        "c",
        "f",
        "b",
        "s",
        "n",
        "w",
        "t",
        "qp",
        "qd",
        "run",
        "pl",
        "pv",
    ):
        assert f"{mark} {EVIL}" in root.text, mark
    assert any(node.attrs.get("title") == f"m {EVIL}" for node in root.inside())
    assert any(node.attrs.get("title") == f"ref {EVIL}" for node in root.inside())


def test_every_rate_stands_with_its_interval_and_n(folder, tmp_path, read_page):
    leaning = {"value": 0.9, "low": 0.7, "high": 0.97, "hits": 18, "n": 20, "level": 0.95}
    folder.block["score"]["favourite_option"] = {"label": "A", "share": leaning}
    root = written(folder, tmp_path, read_page)
    for rate in all_rates(folder.block):
        text = f"{rate['value']:.1%} [{rate['low']:.1%}, {rate['high']:.1%}], n={rate['n']}"
        assert any(node.text == text for node in root.all("span", class_="rate")), text
    for node in root.all("span", class_="rate"):
        assert re.fullmatch(r"\d+\.\d% \[\d+\.\d%, \d+\.\d%\], n=\d+", node.text)
        node.children.clear()
    assert not re.findall(r"\d+\.\d+\s*%", root.one("body").text)


def all_rates(value):
    if isinstance(value, dict):
        below = [rate for each in value.values() for rate in all_rates(each)]
        return [value, *below] if {"value", "low", "high", "n"} <= value.keys() else below
    return [rate for each in value for rate in all_rates(each)] if isinstance(value, list) else []


def test_failures_come_worst_first_and_show_both_sides(make_folder, tmp_path, read_page):
    folder = make_folder(pairs=6)
    plan = {  # pair: (suspect, right_a, right_b, percentile of the model)
        0: (False, False, False, 99.0),
        1: (True, False, False, 96.0),
        2: (True, False, True, 99.5),
        3: (True, True, True, 99.9),
        4: (True, False, False, 98.0),
        5: (None, True, False, None),
    }
    for number, (suspect, right_a, right_b, percentile) in plan.items():
        folder.pairs[number].update(
            suspect=suspect,
            right_a=right_a,
            right_b=right_b,
            pair_right=right_a and right_b,
            percentile_model=percentile,
        )
    cards = section(written(folder, tmp_path, read_page), "failures").all("article")
    assert [card.one("h3").text for card in cards] == [f"Pair pair-{n}" for n in (4, 1, 2, 0, 5)]
    assert [bool(card.all(class_="suspect")) for card in cards] == [True, True, True, False, False]
    assert all(len(card.all("img")) == 2 for card in cards)


def test_a_card_says_question_options_right_answer_given_answer_and_reply(make_folder, tmp_path, read_page):
    folder = make_folder(pairs=1)
    first, second = folder.samples
    first.update(outcome="wrong", target="A", filtered_resps=["B"], resps=[["(B) Right, I think"]])
    second.update(outcome="unread", target="B", filtered_resps=[""], resps=[["A table."]])
    folder.pairs[0].update(right_a=False, right_b=False, pair_right=False, similarity_model=0.98765)
    folder.pairs[0].update(percentile_model=97.26, similarity_reference=0.41, percentile_reference=12.0)
    card = written(folder.score(), tmp_path, read_page).one("article")
    assert card.one(class_="question").text == "Is the cup on the left in scene 0?"
    assert [option.text for option in card.one(class_="options").all("li")] == ["A Left", "B Right"]
    sides = card.all(class_="side")
    assert [side.one(class_="outcome").text for side in sides] == ["wrong", "unread"]
    assert [[dd.text for dd in side.all("dd")] for side in sides] == [
        ["(A) Left", "(B) Right", "(B) Right, I think"],
        ["(B) Right", "names no option", "A table."],
    ]
    alike = card.one(class_="alike").text
    assert (
        "0.9877 to the model\u2019s encoder (percentile 97.3), 0.4100 to the reference (percentile 12.0)"
        in alike
    )
    assert card.all("img")[0].attrs["alt"] == "Image 1 of pair pair-0: 000_a.jpg"


def test_labels_follow_the_prompts_manner(make_folder, tmp_path, read_page):
    folder = make_folder(pairs=1)
    for sample, target, given in zip(folder.samples, "12", "21", strict=True):
        sample.update(outcome="wrong", target=target, filtered_resps=[given])
    folder.pairs[0].update(right_a=False, right_b=False, pair_right=False)
    card = written(folder.score(), tmp_path, read_page).one("article")
    assert [option.text for option in card.one(class_="options").all("li")] == ["1 Left", "2 Right"]
    assert [dd.text for dd in card.all("dd")][:2] == ["(1) Left", "(2) Right"]


def test_items_that_ask_differently_each_show_their_question(make_folder, tmp_path, read_page):
    folder = make_folder(pairs=1)
    folder.samples[1]["doc"]["options"] = ["Right", "Left"]
    folder.pairs[0].update(right_a=False, pair_right=False)
    card = written(folder, tmp_path, read_page).one("article")
    assert [len(side.all(class_="question")) for side in card.all(class_="side")] == [1, 1]
    assert [option.text for option in card.all("li")] == ["A Left", "B Right", "A Right", "B Left"]


def test_without_failures_the_page_says_so(make_folder, tmp_path, read_page):
    folder = make_folder(pairs=3)
    for pair in folder.pairs:
        pair.update(right_a=True, right_b=True, pair_right=True)
    root = written(folder.score(), tmp_path, read_page)
    assert not root.all("article")
    assert "There are none: the model got every pair right." in section(root, "failures").text
    assert "It got 3 of 3 pairs right: 100.0% [" in section(root, "summary").text


def test_one_pair_is_enough_and_spoken_of_as_one(make_folder, tmp_path, read_page):
    folder = make_folder(pairs=1)
    folder.pairs[0].update(right_a=False, pair_right=False)
    text = written(folder.score(), tmp_path, read_page).text
    assert "It got 0 of 1 pair right: 0.0% [" in text
    assert "One pair has at least one answer that is not right." in text
    assert "1 pairs" not in text


def test_a_thousand_pairs_make_a_page_of_bounded_size(make_folder, tmp_path, read_page):
    folder = make_folder(pairs=1000)
    for pair in folder.pairs:
        pair.update(right_a=False, pair_right=False)
    target = write_report(folder.score().write(tmp_path / "run"))
    root = read_page(target)
    failures = section(root, "failures")
    folded = failures.one("details", class_="more")
    assert len(failures.all("article")) == page.CARDS_MAX
    assert len(folded.all("article")) == page.CARDS_MAX - page.CARDS_OPEN
    assert folded.all("summary")[0].text == "Show the 176 other failures in this page"
    assert "800 more failures left out to keep the page small" in failures.text
    assert len(section(root, "suspects").all("use")) >= 1000
    assert target.stat().st_size < 3_000_000


def test_pictures_stop_at_a_number_of_bytes_and_the_page_says_how_many_are_missing(
    make_folder, tmp_path, read_page, monkeypatch
):
    folder = make_folder(pairs=9)
    for pair in folder.pairs:
        pair.update(right_a=False, pair_right=False)
    monkeypatch.setattr(page, "PICTURE_BYTES_MAX", sum(sorted(map(len, folder.thumbs.values()))[-8:]))
    root = written(folder, tmp_path, read_page)
    shown = len(root.all("article"))
    assert 0 < shown < 9
    assert f"{9 - shown} more failures left out" in root.text


def test_a_reply_of_a_million_characters_is_cut_and_says_so(make_folder, tmp_path, read_page):
    folder = make_folder(pairs=1)
    folder.samples[0].update(outcome="wrong", resps=[["word " * 200_000]])
    folder.pairs[0].update(right_a=False, pair_right=False)
    target = write_report(folder.write(tmp_path / "run"))
    assert target.stat().st_size < 100_000
    details = read_page(target).one("article").one("details", class_="reply")
    assert details.one("q").text.endswith("…")
    assert "998000 characters more in the samples file." in details.text


def test_a_long_question_opens_on_request(make_folder, tmp_path, read_page):
    folder = make_folder(pairs=1)
    for sample in folder.samples:
        sample["doc"]["question"] = "Is it so? " * 50
    folder.pairs[0].update(right_a=False, pair_right=False)
    details = written(folder, tmp_path, read_page).one("article").one("details", class_="question")
    assert len(details.one("summary").text) <= page.QUESTION_SHOWN + 1
    assert details.one("p").text == ("Is it so? " * 50).strip()


@pytest.mark.parametrize("thumb", [None, b"", b"GIF89a not a JPEG"])
def test_a_missing_or_foreign_thumb_leaves_a_placeholder(make_folder, tmp_path, read_page, thumb):
    folder = make_folder(pairs=1)
    folder.pairs[0].update(right_a=False, pair_right=False)
    sha256 = folder.samples[0]["doc"]["image_sha256"]
    del folder.thumbs[sha256]
    if thumb is not None:
        folder.thumbs[sha256] = thumb
    card = written(folder, tmp_path, read_page).one("article")
    assert card.one(class_="no-picture").attrs["aria-label"] == "No thumbnail of 000_a.jpg in this run folder"
    assert len(card.all("img")) == 1


def test_a_hash_is_never_followed_out_of_the_folder(make_folder, tmp_path, read_page):
    folder = make_folder(pairs=1)
    folder.pairs[0].update(right_a=False, pair_right=False)
    folder.samples[0]["doc"]["image_sha256"] = "../../secret"
    (tmp_path / "secret.jpg").write_bytes(b"\xff\xd8\xff secret")
    assert written(folder, tmp_path, read_page).one("article").one(class_="no-picture")


def test_other_scripts_emoji_and_broken_characters_pass(make_folder, tmp_path, read_page):
    folder = make_folder(pairs=1)
    folder.samples[0]["doc"]["question"] = "هل الكوب على اليسار؟ 🍵"
    folder.samples[1]["doc"]["question"] = "هل الكوب على اليسار؟ 🍵"
    folder.samples[0].update(outcome="wrong", resps=[["a\x00b\x1b[31m \ud800 \u202e \u2028 end"]])
    folder.pairs[0].update(right_a=False, pair_right=False)
    target = write_report(folder.write(tmp_path / "run"))
    card = read_page(target).one("article")
    question = card.one(class_="question")
    assert question.text == "هل الكوب على اليسار؟ 🍵"
    assert question.attrs["dir"] == "auto"
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", target.read_text("utf8"))
    assert "end" in card.text


def test_without_a_reference_there_are_no_suspects_but_a_reason(folder, tmp_path, read_page):
    folder.block.update(reference=None, reference_missing="no reference encoder is stored on this machine")
    for pair in folder.pairs:
        pair.update(suspect=None, similarity_reference=None, percentile_reference=None)
    root = written(folder.score(), tmp_path, read_page)
    for name in ("summary", "suspects"):
        assert "xamined: no reference encoder is stored on this machine." in section(root, name).text
    assert not root.all(class_="plot")
    assert "to the reference" not in section(root, "failures").text


def test_a_model_that_cannot_show_its_fed_features_is_the_reason_itself(folder, tmp_path, read_page):
    folder.block["find"], folder.block["model"]["fed"] = None, None
    folder.block["model"]["cannot"]["fed_features"] = "a server shows no features"
    root = written(folder, tmp_path, read_page)
    for name in ("summary", "suspects", "model"):
        assert "a server shows no features" in section(root, name).text


def test_without_patterns_there_is_one_line_for_all_pairs(make_folder, tmp_path, read_page):
    root = written(make_folder(patterns=(None,)), tmp_path, read_page)
    patterns = section(root, "patterns")
    assert "This benchmark names no patterns" in patterns.text
    assert [node.text for node in patterns.all(class_="name")] == ["all pairs"]
    assert "(none)" not in root.text


def test_the_chart_puts_dot_interval_and_chance_where_the_numbers_are(folder, tmp_path, read_page):
    row = section(written(folder, tmp_path, read_page), "patterns").one(class_="dots").all("li")[0]
    pairs = folder.block["score"]["pairs"]
    where = {node.attrs["class"]: node.attrs for node in row.one("svg").children if not isinstance(node, str)}
    assert where["dot"]["cx"] == f"{pairs['value'] * 100:.2f}%"
    assert (where["range"]["x1"], where["range"]["x2"]) == (
        f"{pairs['low'] * 100:.2f}%",
        f"{pairs['high'] * 100:.2f}%",
    )
    assert where["chance"]["x1"] == "25.00%"


def test_every_pair_with_known_similarities_has_a_mark_right_or_wrong(folder, tmp_path, read_page):
    folder.pairs[0]["similarity_reference"] = None
    plot = section(written(folder, tmp_path, read_page), "suspects").one(class_="plot")
    drawn = [node.attrs["href"] for node in plot.all("use")]
    right = sum(pair["pair_right"] for pair in folder.pairs[1:])
    assert (drawn.count("#m-right"), drawn.count("#m-wrong")) == (right, len(folder.pairs) - 1 - right)


def test_what_was_left_out_is_listed_with_its_reason_in_words(folder, tmp_path, read_page):
    folder.quarantine.append({"path": "row 7", "reason": "bad_row", "detail": None})
    folder.block["benchmark"]["quarantined"] = 2
    table = section(written(folder, tmp_path, read_page), "data").one("table", class_="small")
    rows = [[cell.text for cell in row.all("td")] for row in table.one("tbody").all("tr")]
    assert rows == [
        ["photos/broken.png", "the file ends before its picture does", "image file is truncated (3 bytes)"],
        ["row 7", "bad row", ""],
    ]


def test_abilities_are_told_with_the_reason_for_each_that_is_missing(folder, tmp_path, read_page):
    able = [
        item.text
        for item in section(written(folder, tmp_path, read_page), "model").one(class_="able").all("li")
    ]
    assert able[0] == "It can write an answer"
    assert "It cannot have attention edges cut (knockout): its attention is fused" in able
    assert len(able) == 7


def test_the_run_tells_command_versions_and_hashes(folder, tmp_path, read_page):
    run = section(written(folder, tmp_path, read_page), "run")
    assert run.one("pre", class_="command").text == folder.manifest["rerun"]
    for text in ("0.1.0", "3.11.9", "sdpa", "the largest that fitted", "torch", "2.13.0", "ask: generate"):
        assert text in run.text
    assert run.all("code", title="9" * 40)[0].text == "9" * page.words.ID_SHOWN + "…"


def test_the_same_folder_gives_the_same_bytes_wherever_it_lies(folder, tmp_path):
    first = write_report(folder.write(tmp_path / "first"))
    before = first.read_bytes()
    shutil.copytree(tmp_path / "first", tmp_path / "elsewhere")
    assert write_report(tmp_path / "first").read_bytes() == before
    assert write_report(tmp_path / "elsewhere").read_bytes() == before
    assert str(datetime.now().year) not in re.sub(r"base64,[^\"]+", "", before.decode())


def test_the_page_goes_where_it_is_asked_to(folder, tmp_path):
    run = folder.write(tmp_path / "run")
    assert write_report(run) == run / "report.html"
    (tmp_path / "pages").mkdir()
    assert write_report(run, out=tmp_path / "pages") == tmp_path / "pages" / "report.html"
    named = write_report(run, out=tmp_path / "new" / "mine.html")
    assert named.read_bytes() == (run / "report.html").read_bytes()
    assert sorted(path.name for path in named.parent.iterdir()) == ["mine.html"]


def test_headings_links_ids_and_alternatives_are_in_order(folder, tmp_path, read_page):
    folder.block["model"]["trained"] = False
    root = written(folder, tmp_path, read_page)
    assert root.one("html").attrs["lang"] == "en"
    levels = [int(node.tag[1]) for node in root.inside() if re.fullmatch("h[1-6]", node.tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    ids = [node.attrs["id"] for node in root.inside() if "id" in node.attrs]
    assert len(ids) == len(set(ids))
    targets = {node.attrs["href"][1:] for node in root.inside() if node.attrs.get("href", "").startswith("#")}
    targets |= {node.attrs["aria-labelledby"] for node in root.inside() if "aria-labelledby" in node.attrs}
    assert targets <= set(ids)
    assert all(node.attrs["alt"] for node in root.all("img"))
    for svg in root.all("svg"):
        inherited = svg.attrs.get("aria-hidden") == "true" or svg.attrs.get("aria-label")
        assert inherited, svg.attrs
    for region in root.all(class_="scroll"):
        assert region.attrs["tabindex"] == "0"


def test_both_themes_have_the_contrast_that_text_needs(folder, tmp_path, read_page):
    style = written(folder, tmp_path, read_page).one("style").text
    themes = [
        dict(re.findall(r"--(\w[\w-]*): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root \{(.*?)\}", style)
    ]
    assert len(themes) == 3, "light, dark, print"
    for theme in themes:
        for ink in ("ink", "soft", "link", "right", "wrong", "unread"):
            for ground in ("paper", "panel"):
                assert contrast(theme[ink], theme[ground]) >= 4.5, (ink, ground, theme[ink], theme[ground])
        assert contrast(theme["ink"], theme["banner"]) >= 7


def contrast(first, second):
    """WCAG 2.2, contrast ratio: https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio."""

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_nothing_is_computed_the_page_repeats_what_the_files_say(folder, tmp_path, read_page):
    run = folder.write(tmp_path / "run")
    results = json.loads((run / "results.json").read_text())
    results["eyechart"]["score"]["pairs"].update(value=0.111, low=0.011, high=0.999, n=7777)
    (run / "results.json").write_text(json.dumps(results))
    assert "11.1% [1.1%, 99.9%], n=7777" in read_page(write_report(run)).text
