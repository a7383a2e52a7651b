"""Another model beside the one examined: what the page shows and what the summary says of it."""

from eyechart.report import summary_sentences, write_report

MIXED = {"color": "undecided", "orientation": "better", "quantity": "worse"}


def written(folder, tmp_path, read_page):
    return read_page(write_report(folder.write(tmp_path / "run")))


def test_without_another_model_there_is_no_such_section(folder, tmp_path, read_page):
    root = written(folder, tmp_path, read_page)
    assert not root.all("section", id="beside")
    assert "#beside" not in [link.attrs.get("href") for link in root.all("a")]
    assert "Beside" not in root.one("section", id="summary").text


def test_both_rates_stand_by_pattern_and_the_differences_in_a_table(folder, tmp_path, read_page):
    part = written(folder.set_beside(MIXED), tmp_path, read_page).one("section", id="beside")
    rows = {row.one("th").text: row for row in part.one("tbody").all("tr")}
    assert {name: row.all("td")[-1].text for name, row in rows.items()} == MIXED
    assert "+50.0 points [+25.0, +75.0], n=4" in rows["orientation"].text
    assert "\u221250.0 points [\u221275.0, \u221225.0], n=4" in rows["quantity"].text
    groups = {line.one(class_="name").text: line for line in part.one("figure").all("li")}
    assert set(groups) == {"all pairs", *MIXED}
    assert all(len(line.all("svg")) == 2 == len(line.all(class_="rate")) for line in groups.values())
    hits = {row["pattern"]: row["pairs"]["value"] for row in folder.block["patterns"]}
    for pattern in MIXED:
        first, second = (rate.text for rate in groups[pattern].all(class_="rate"))
        assert first.startswith(f"{hits[pattern]:.1%} [")
        assert second.startswith("75.0% [")
    assert "it was told more" in part.text
    assert part.one(class_="command").text == folder.block["beside"]["command"]
    assert "../second/report.html" in [link.attrs["href"] for link in part.all("a")]


def test_the_summary_claims_only_what_the_tests_show(folder, tmp_path):
    said = " ".join(summary_sentences(folder.set_beside(MIXED).write(tmp_path / "run")))
    assert "Beside it, example/second got 9 of 12 of the same pairs right (75.0% [" in said
    assert "a difference of +50.0 points [+25.0, +75.0], n=12, p = 0.010." in said
    assert (
        "it is better on orientation and it is worse on quantity; on color 4 pairs each cannot tell" in said
    )


def test_no_difference_shown_is_not_called_equal(folder, tmp_path):
    folder.set_beside(dict.fromkeys(MIXED, "undecided"), overall="undecided")
    said = " ".join(summary_sentences(folder.write(tmp_path / "run")))
    assert "too little to say that either is better, which is not to say that they are equal" in said
    assert "4 pairs each can tell the two apart on none." in said
    assert "it is better" not in said


def test_several_patterns_left_open_are_counted(folder, tmp_path):
    folder.set_beside({"color": "undecided", "orientation": "better", "quantity": "undecided"})
    said = " ".join(summary_sentences(folder.write(tmp_path / "run")))
    assert "it is better on orientation; on the other 2 patterns 4 pairs each cannot tell" in said


def test_a_benchmark_without_patterns_has_one_line(folder, tmp_path, read_page):
    part = written(folder.set_beside({}), tmp_path, read_page).one("section", id="beside")
    assert [line.one(class_="name").text for line in part.one("figure").all("li")] == ["all pairs"]
    assert "Pattern by pattern" not in " ".join(summary_sentences(tmp_path / "run"))


def test_an_untrained_neighbour_is_named_as_such_and_names_are_escaped(folder, tmp_path):
    folder.set_beside(MIXED)
    folder.block["beside"]["others"][0].update(trained=False, id="<script>x</script>")
    page = write_report(folder.write(tmp_path / "run")).read_text("utf8")
    assert "<script>" not in page
    assert "random weights: it has learnt nothing" in page
