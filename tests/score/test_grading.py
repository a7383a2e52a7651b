"""Replies and how they must be read: traps of public graders, then properties."""

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyechart.core.records import Item, Outcome
from eyechart.score import LABEL_STYLES, grade_reply, grade_scores, read_choice
from eyechart.score.replies import choices, mentions, plain, words

PLAIN = ("Tall", "Wide")
OPEN = ("Open", "Closed")
YES = ("Yes", "No")

# reply, options, the option it names (None: none, or not clearly one)
READ = [
    # bare labels and their dress
    ("A", PLAIN, 0),
    ("b", PLAIN, 1),
    ("B.", PLAIN, 1),
    ("(B)", PLAIN, 1),
    ("[b]", PLAIN, 1),
    ("b)", PLAIN, 1),
    ("B!", PLAIN, 1),
    ("'B'", PLAIN, 1),
    ("**B**", PLAIN, 1),
    ("`B`", PLAIN, 1),
    ("__B__", PLAIN, 1),
    ("### Answer: B", PLAIN, 1),
    ("B<|im_end|>", PLAIN, 1),
    ("B</s>", PLAIN, 1),
    ("\N{FULLWIDTH LATIN CAPITAL LETTER B}", PLAIN, 1),
    (
        "\N{FULLWIDTH LEFT PARENTHESIS}\N{FULLWIDTH LATIN SMALL LETTER B}\N{FULLWIDTH RIGHT PARENTHESIS}",
        PLAIN,
        1,
    ),
    ("\N{MATHEMATICAL BOLD CAPITAL B}", PLAIN, 1),
    ("\N{ZERO WIDTH SPACE}B", PLAIN, 1),
    (r"\boxed{B}", PLAIN, 1),
    (r"$\boxed{\text{B}}$", PLAIN, 1),
    (r"Thus \(A\) is out, so \boxed{(b)}.", PLAIN, 1),
    ("<answer>B</answer>", PLAIN, 1),
    ("<think>A? No. Open?</think>\n\nB", OPEN, 1),
    # label and more
    ("(a) Open", OPEN, 0),
    ("A. Open", OPEN, 0),
    ("a) Open", OPEN, 0),
    ("A: Open", OPEN, 0),
    ("A - Open", OPEN, 0),
    ("A \N{EM DASH} Open", OPEN, 0),
    ("- B", OPEN, 1),
    ("B\nIt sits", OPEN, 1),
    ("b\nIt sits.", OPEN, 1),
    ("B, because the wings are folded.", OPEN, 1),
    ("B because the wings are folded.", OPEN, 1),
    ("(b) The wings are folded.", OPEN, 1),
    ("(b) No", YES, 1),
    ("(b) not open", ("Open", "Not open"), 1),
    ("The wings are folded (b).", OPEN, 1),
    ("(b) The wings are actually closed.", OPEN, 1),
    ("B\nPeople wait there.", OPEN, 1),
    ("Correct. We cannot see the window.", ("Correct", "Incorrect"), 0),
    # stated answers
    ("The answer is: A", OPEN, 0),
    ("The answer is (B).", OPEN, 1),
    ("Answer: b", OPEN, 1),
    ("ANSWER: (b) Closed", OPEN, 1),
    ("Answer - B", OPEN, 1),
    ("The correct answer is option B.", OPEN, 1),
    ("The correct answer is B.", ("Correct", "Incorrect"), 1),
    ("Option B", OPEN, 1),
    ("Option B is correct.", OPEN, 1),
    ("(a) is correct", OPEN, 0),
    ("A is the right answer.", OPEN, 0),
    ("I think the answer is B", OPEN, 1),
    ("I choose (b).", OPEN, 1),
    ("It's B.", OPEN, 1),
    ("The answer is A because the wings are spread.", OPEN, 0),
    ("There is a lemon inside; the answer: (b)", ("There is one inside", "All are outside"), 1),
    ("The answer is the sofa", ("The sofa", "The bed"), 0),
    ("The answer is the sofa", ("A bed", "A sofa"), 1),
    ('The answer is "Closed".', OPEN, 1),
    ("The answer is a cat.", ("a dog", "a cat"), 1),
    ("Option (a) is wrong. The answer is (b).", OPEN, 1),
    ("I don't think the answer is A. The answer is B.", OPEN, 1),
    ("(a) Open (b) Closed\nAnswer: (b)", OPEN, 1),
    ("The answer is A. On reflection it is not. Final answer: (b)", OPEN, 1),
    # an option's words
    ("Closed", OPEN, 1),
    ("closed.", OPEN, 1),
    ("Closed, since the wings touch.", OPEN, 1),
    ("Closed\nThe wings touch.", OPEN, 1),
    ("Yes.", YES, 0),
    ("Yes, the dog is in the left half.", YES, 0),
    ("Yes it is.", YES, 0),
    ("No there isn't", YES, 1),
    ("NO!", YES, 1),
    ("Incorrect.", ("Correct", "Incorrect"), 1),
    ("A man", ("A woman", "A man"), 1),
    ("not open", ("open", "not open"), 1),
    ("Open.", ("open", "not open"), 0),
    ("leftmost", ("left", "leftmost"), 1),
    ("12", ("12", "1"), 0),
    ("1.", ("12", "1"), 1),
    ("11:54", ("11:54", "11:59"), 0),
    ("Two", ("1", "2"), 1),
    ("2", ("One", "Two"), 1),
    ("More than one.", ("One", "More than one"), 1),
    ("OK/SELECT", ("OK/SELECT", "OK"), 0),
    ("OK", ("OK/SELECT", "OK"), 1),
    ("Happy Easter!", ('"Happy Easter"', '"Happy Easter!"'), 1),
    ('"Happy Easter"', ('"Happy Easter"', '"Happy Easter!"'), 0),
    ('(A) "Happy Easter"', ('"Happy Easter"', '"Happy Easter!"'), 0),
    ("The answer is incorrect.", ("Correct", "Incorrect"), 1),
    ("I cannot tell", ("A dog", "I cannot tell"), 1),
    # the same over and over
    ("B\n" * 5000, PLAIN, 1),
    ("B B B B", PLAIN, 1),
    ("The answer is B. " * 300, PLAIN, 1),
]

UNREAD = [
    # no option at all
    ("", OPEN),
    (" \n\t ", OPEN),
    ("...", OPEN),
    ("bananas", OPEN),
    ("The butterfly is on a leaf", OPEN),
    ("A man is standing.", ("Sitting", "Standing")),
    ("Both options look plausible", OPEN),
    ("Both are visible", OPEN),
    ("There is a lemon inside", ("There is one inside", "All are outside")),
    ("The answer is the sofa", OPEN),
    ("The answer is the sofa on the left", ("The sofa", "The bed")),
    ("The answer is a man", OPEN),
    ("No answer.", OPEN),
    ("There is no doubt about it", YES),
    ("A", ("Yes", "No", "A")),  # label A, and the words of C
    ("I see a dog", tuple("pqrstuvwx")),  # I is the ninth label, and a pronoun
    ("A-frame", OPEN),
    ("B52", OPEN),
    ("T-shirt", ("Shirt", "T-shirt jacket")),
    ("1.5", ("12", "1")),
    ("option 2", OPEN),
    ("(2)", OPEN),
    ("C", OPEN),
    ("\N{CYRILLIC CAPITAL LETTER A}", OPEN),
    ("\N{CYRILLIC CAPITAL LETTER VE}", OPEN),
    ("\N{GREEK CAPITAL LETTER BETA}", OPEN),
    ("<think>It is B, I am sure: the answer is B", OPEN),
    # several options
    ("A or B", OPEN),
    ("A/B", OPEN),
    ("A and B", OPEN),
    ("(a) and (b)", OPEN),
    ("(a) Open (b) Closed", OPEN),
    ("The answer is (a) or (b)", OPEN),
    ("Answer: A, B", OPEN),
    ("Answer: A/B", OPEN),
    ("yes and no", YES),
    ("Yes, no.", YES),
    ("Open, closed", OPEN),
    ("The answer is A. The answer is B. " * 100, OPEN),
    ("Final answer: A. Final answer: B.", OPEN),
    # contradictions
    ("A... no, B", OPEN),
    ("A. No, it is (b)", OPEN),
    ("Not (a), so I choose (b)", OPEN),
    ("A. No, B", OPEN),
    ("(a), no wait, b", OPEN),
    ("The answer is A. Or rather B.", OPEN),
    ("A. Wait, I take that back", OPEN),
    ("A. Actually, that is not so", OPEN),
    ("A. Hmm, (a) is wrong.", OPEN),
    ("(a) Closed", OPEN),
    ("A: Yes", ("No", "Yes")),
    ("B is correct.", ("Correct", "Incorrect")),
    ("A\nThe answer is B.", OPEN),
    ("2", ("12", "1", "2 or more")),
    ("Happy Easter.", ('"Happy Easter"', '"Happy Easter!"')),
    # denied, asked, supposed
    ("not open", OPEN),
    ("not A", OPEN),
    ("The answer is not A", OPEN),
    ("I don't think the answer is A", OPEN),
    ("It is unlikely that the answer is A.", OPEN),
    ("The wrong answer is A.", OPEN),
    ("(a) is wrong", OPEN),
    ("A is not correct", OPEN),
    ("Neither (a)", OPEN),
    ("Is the answer A?", OPEN),
    ("A?", OPEN),
    ("(a)?", OPEN),
    ("If the answer is A, then the wings are spread", OPEN),
    ("The answer could be B", OPEN),
    ("I cannot tell", OPEN),
    ("I'm not sure. A", OPEN),
    ("It is impossible to tell from this picture (a).", OPEN),
    ("Right, let me see.", ("Left", "Right")),
]  # fmt: skip


@pytest.mark.parametrize(("reply", "options", "choice"), READ)
def test_a_reply_that_names_one_option_is_read(reply, options, choice):
    assert read_choice(reply, options, "ABCDEFGHI"[: len(options)]) == choice


@pytest.mark.parametrize(("reply", "options"), UNREAD)
def test_a_reply_that_does_not_is_unread(reply, options):
    assert read_choice(reply, options, "ABCDEFGHI"[: len(options)]) is None


@pytest.mark.parametrize(
    ("reply", "options", "choice"),
    [
        ("2", PLAIN, 1),
        ("(2)", PLAIN, 1),
        ("option 2", PLAIN, 1),
        ("Answer: 2", PLAIN, 1),
        ("2. Wide", PLAIN, 1),
        ("(2) 5", ("4", "5"), 1),
        ("12", PLAIN, None),
        ("2.5", PLAIN, None),
        ("There are 2", PLAIN, None),
        ("B", PLAIN, None),
        ("2", ("2", "1"), None),  # the second option, or the text of the first
        ("2", ("1", "2"), 1),
        ("1 or 2", PLAIN, None),
    ],
)
def test_numbers_name_options_only_where_options_bear_numbers(reply, options, choice):
    assert read_choice(reply, options, ("1", "2")) == choice


def test_long_loops_are_read_in_time():
    pieces = ["A", "the answer is ", "(a) ", "A. ", "<think>", "<answer>", "\\boxed{", "option ", " ", "not ", "-", '"',
              "A is the ", "it is ", "open, ", "1.", "the "]  # fmt: skip
    for piece in pieces:
        start = time.process_time()
        read_choice(piece * (15_000 // len(piece)), ("open", "not open"), "AB")
        assert time.process_time() - start < 3, f"{piece!r} repeated"


def test_labels_must_fit():
    with pytest.raises(ValueError, match="2 options and 3 labels"):
        read_choice("A", PLAIN, "ABC")
    with pytest.raises(ValueError, match=r"got \('A', '2'\)"):
        read_choice("A", PLAIN, ("A", "2"))
    with pytest.raises(ValueError, match=r"got \('A\.', 'B\.'\)"):
        read_choice("A", PLAIN, ("A.", "B."))


def item_of(answer=1):
    return Item(
        id="7",
        pair_id="4",
        question="Which?",
        options=PLAIN,
        answer=answer,
        image=Path("7.jpg"),
        image_sha256="0",
    )


def test_a_graded_reply_keeps_the_reply_and_has_three_outcomes():
    for reply, choice, outcome in (
        ("B", 1, Outcome.RIGHT),
        ("A", 0, Outcome.WRONG),
        ("?", None, Outcome.UNREAD),
    ):
        graded = grade_reply(item_of(), reply, "AB")
        assert (graded.item_id, graded.reply, graded.choice, graded.outcome) == ("7", reply, choice, outcome)
        assert graded.option_scores is None


def test_scores_name_the_highest_and_a_tie_names_none():
    graded = grade_scores(item_of(), (-3.0, -1.0), "AB")
    assert (graded.choice, graded.outcome, graded.reply) == (1, Outcome.RIGHT, "B")
    assert graded.option_scores == (-3.0, -1.0)
    assert grade_scores(item_of(), (0.5, 0.25), "AB").outcome is Outcome.WRONG
    for tie in ((1.0, 1.0), (float("-inf"), float("-inf"))):
        graded = grade_scores(item_of(), tie, "AB")
        assert (graded.choice, graded.outcome, graded.reply) == (None, Outcome.UNREAD, "")


def test_scores_must_be_numbers_and_one_for_each_option():
    with pytest.raises(ValueError, match="item '7': 2 options, 3 scores"):
        grade_scores(item_of(), (1.0, 2.0, 3.0), "AB")
    with pytest.raises(ValueError, match=r"item '7'.*\(1.0, nan\)"):
        grade_scores(item_of(), (1.0, float("nan")), "AB")


# ---- properties

WORDS = st.sampled_from(
    [
        "A",
        "B",
        "a",
        "b",
        "(a)",
        "(b)",
        "Open",
        "closed",
        "not",
        "no",
        "or",
        "and",
        "the",
        "answer",
        "is",
        "the answer is",
        "Answer:",
        "final answer:",
        "option",
        "I",
        "choose",
        "because",
        ".",
        ",",
        ";",
        "?",
        "!",
        "...",
        "\n",
        "-",
        '"',
        "**",
        "correct",
        "wrong",
        "1",
        "yes",
        "cannot tell",
        r"\boxed{B}",
        "leaf",
    ]
)
SENTENCES = st.lists(WORDS, max_size=9).map(" ".join)
OPTIONS = st.lists(st.text(min_size=1, max_size=12), min_size=2, max_size=5, unique=True)
STYLE = st.sampled_from(sorted(LABEL_STYLES))


@settings(max_examples=120, deadline=None)
@given(reply=st.one_of(st.text(max_size=60), SENTENCES), options=OPTIONS, style=STYLE)
def test_any_text_gives_a_place_or_none_and_always_the_same(reply, options, style):
    labels = LABEL_STYLES[style].labels(len(options))
    choice = read_choice(reply, options, labels)
    assert choice is None or choice in range(len(options))
    assert read_choice(reply, options, labels) == choice
    assert read_choice(f"  {reply}\n", options, labels) == choice


@settings(max_examples=120, deadline=None)
@given(
    reply=SENTENCES,
    options=st.permutations(["Open", "Closed", "Not open", "1"]),
    order=st.permutations(range(4)),
    style=STYLE,
)
def test_the_order_of_options_decides_nothing(reply, options, order, style):
    """Options that move together with their labels are named by the same replies."""
    labels = LABEL_STYLES[style].labels(4)
    before = read_choice(reply, options, labels)
    after = read_choice(reply, [options[place] for place in order], [labels[place] for place in order])
    assert (None if before is None else order.index(before)) == after


@settings(max_examples=80, deadline=None)
@given(
    reply=st.lists(
        st.sampled_from(["Open", "closed", "not", ".", ",", "\n", "the", "answer is", "yes"]), max_size=7
    )
)
def test_words_are_read_without_regard_to_labels(reply):
    """Where no label is said, swapping the options' places swaps the choice."""
    text = " ".join(reply)
    there, back = read_choice(text, OPEN, "AB"), read_choice(text, OPEN[::-1], "AB")
    assert (None if there is None else 1 - there) == back


@settings(max_examples=150, deadline=None)
@given(reply=SENTENCES)
def test_the_option_read_occurs_in_the_reply_and_a_second_one_only_before_a_statement(reply):
    choice = read_choice(reply, OPEN, "AB")
    if choice is None:
        return
    known = choices(OPEN, ("A", "B"))
    assert {word.text for word in words(plain(reply))} & {
        "ab"[choice], OPEN[choice].lower()
    }  # fmt: skip
    if any(choice not in mention for mention in mentions(plain(reply), known)):
        assert any(word in plain(reply).lower() for word in ("answer", "option", "choose", "correct", "is"))


@settings(max_examples=80, deadline=None)
@given(
    first=st.sampled_from(["A", "(a)", "Open", "A.", "a)", "The answer is A", "The answer is open"]),
    middle=st.sampled_from([" ", ", ", ". ", "\n", " or ", " and ", "; ", ". No, ", " ... ", "! Maybe "]),
    second=st.sampled_from(["B", "(b)", "closed", "b)", "B.", "b."]),
    swap=st.booleans(),
)
def test_a_reply_that_ends_by_naming_another_option_is_never_read(first, middle, second, swap):
    reply = first + middle + second
    assert read_choice(reply, OPEN[::-1] if swap else OPEN, "BA" if swap else "AB") is None


@settings(max_examples=50, deadline=None)
@given(
    options=st.lists(
        st.text(alphabet="abcdefgh ", min_size=3, max_size=12).map(str.strip), min_size=2, max_size=4
    )
)
def test_an_options_own_text_names_it(options):
    known = [" ".join(option.split()) for option in options]
    if len({option.casefold() for option in known}) < len(known) or any(len(option) < 2 for option in known):
        return
    for place, option in enumerate(known):
        assert read_choice(option, known, "ABCD"[: len(known)]) == place


@settings(max_examples=50, deadline=None)
@given(style=STYLE, count=st.integers(2, 26), data=st.data())
def test_every_label_names_its_option(style, count, data):
    labels = LABEL_STYLES[style].labels(count)
    place = data.draw(st.integers(0, count - 1))
    options = [f"thing {chr(97 + number) * 3}" for number in range(count)]
    for form in ("{}", "({})", "{}.", "{}\nSo it is", "The answer is {}.", "Answer: {}"):
        assert read_choice(form.format(labels[place]), options, labels) == place


def test_words_and_their_places():
    assert [word.text for word in words("It's 1.5, OK/SELECT; T-shirt at 11:54")] == [
        "it's", "1.5", "ok", "select", "t", "shirt", "at", "11:54",
    ]  # fmt: skip
    (word,) = words("  seven!")
    assert (word.text, word.start, word.end) == ("7", 2, 7)


def test_what_a_text_may_name():
    known = choices(("Open", "Not open", "The sofa"), ("A", "B", "C"))
    for text, found in {
        "not open": {1},
        "open, not open": {0, 1},
        "a sofa": {2},
        "a man": set(),
        "option a": {0},
        "c": {2},
        "it's": set(),
    }.items():
        assert set().union(*mentions(text, known)) == found, text
    assert mentions("happy", choices(("Happy", "Happy!"), ("A", "B"))) == [{0, 1}]
