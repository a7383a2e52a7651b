"""Floor patterns, rugs, letters and paints, each against what it is by definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyechart.world.facts import LETTERS
from eyechart.world.paints import COLOR_RGB, SLOT_RGB, encoded, linear, paint
from eyechart.world.scene import Floor, Rug
from eyechart.world.surfaces import GLYPH, floor_color, glyph, on_letter, on_rug

PATTERNS = ("plain", "checks", "planks", "tiles", "speckles")


def floor(pattern, *, scale=0.4, angle=30.0):
    return Floor(pattern=pattern, first=(0.7, 0.7, 0.7), second=(0.4, 0.4, 0.4), scale=scale, angle=angle)


def share(pattern, x, z, width, **settings):
    """How much of the second colour there is, from the colour itself."""
    x, z, width = (np.asarray(one, dtype=np.float32) for one in np.broadcast_arrays(x, z, width))
    first, second = linear((0.7,))[0], linear((0.4,))[0]
    return (floor_color(floor(pattern, **settings), x.ravel(), z.ravel(), width.ravel())[0] - first) / (
        second - first
    )


@pytest.mark.parametrize("pattern", PATTERNS)
@settings(max_examples=20)
@given(
    x=st.floats(-20, 20),
    z=st.floats(-20, 20),
    width=st.floats(1e-3, 3),
    scale=st.floats(0.2, 0.6),
    angle=st.floats(0, 90),
)
def test_a_floor_lies_between_its_two_colors(pattern, x, z, width, scale, angle):
    assert -1e-4 <= share(pattern, [x], [z], [width], scale=scale, angle=angle)[0] <= 1 + 1e-4


@pytest.mark.parametrize("pattern", PATTERNS[1:])
def test_a_pattern_has_contrast_near_by_and_fades_far_away(pattern):
    x, z = np.random.default_rng(0).uniform(-3, 3, (2, 4000))
    near, far = share(pattern, x, z, 0.002), share(pattern, x, z, 3.0)
    assert near.std() > 0.15
    assert far.std() < 0.6 * near.std()


@pytest.mark.parametrize("pattern", ["checks", "speckles"])
def test_the_faded_pattern_keeps_its_mean(pattern):
    x, z = np.random.default_rng(0).uniform(-8, 8, (2, 20_000))
    assert share(pattern, x, z, 0.002).mean() == pytest.approx(share(pattern, x, z, 0.15).mean(), abs=0.06)


def test_checks_alternate_from_square_to_square():
    middles = np.arange(8) * 0.4
    seen = share("checks", middles, 0.0, 0.002, angle=0.0)
    assert np.allclose(np.abs(np.diff(seen)), 1, atol=1e-3)


def test_a_plain_floor_is_its_first_color():
    assert np.allclose(share("plain", np.linspace(-3, 3, 9), 0.0, 0.01), 0)


@pytest.mark.parametrize(
    ("shape", "angle", "inside", "outside"),
    [
        ("disc", 0, [(1, 2), (1.45, 2)], [(1.55, 2), (1.4, 2.4)]),
        ("ring", 0, [(1.4, 2), (1, 2.3)], [(1, 2), (1.2, 2), (1.6, 2)]),
        ("square", 0, [(1.45, 2.45), (1, 2)], [(1.55, 2), (1, 2.55)]),
        # turned as a thing is: its side that looked to +x now looks towards -z as well
        ("square", 30, [(1.476, 2.275)], [(1.476, 1.725)]),
        ("square", 45, [(1.65, 2), (1, 1.4)], [(1.45, 2.45)]),
    ],
)
def test_rugs_cover_their_shape(shape, angle, inside, outside):
    rug = Rug(shape=shape, color="red", x=1.0, z=2.0, size=0.5, angle=float(angle))
    for points, expected in ((inside, True), (outside, False)):
        x, z = np.array(points, dtype=np.float32).T
        assert (on_rug(rug, x, z) == expected).all()


@pytest.mark.parametrize("letter", LETTERS)
def test_a_glyph_is_tight_and_full_height(letter):
    texels = glyph(letter)
    assert texels.shape[0] == GLYPH
    assert set(np.unique(texels)) == {0, 1}
    assert texels[[0, -1]].any(1).all()
    assert texels[:, :4].any()
    assert texels[:, -4:].any()


def test_letters_are_unlike_one_another():
    drawn = {letter: glyph(letter).tobytes() for letter in LETTERS}
    assert len(set(drawn.values())) == len(LETTERS)


def test_an_l_stands_on_its_foot_and_is_open_at_the_upper_right():
    across = np.array([-0.2, 0.2, 0.2, 0.0], dtype=np.float32)
    up = np.array([0.4, -0.45, 0.3, 2.0], dtype=np.float32)
    assert on_letter("L", across, up).tolist() == [True, True, False, False]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
@settings(max_examples=30)
def test_encoding_undoes_linear(values):
    assert encoded(linear(values)) == pytest.approx(values, abs=1e-5)


def test_linear_light_of_middle_grey():
    assert linear((0.5, 0.0, 1.0)) == pytest.approx((0.21404, 0, 1), abs=1e-5)  # IEC 61966-2-1


def test_paints_are_the_table_in_linear_light():
    for name, rgb in {**COLOR_RGB, **SLOT_RGB}.items():
        assert 255 * encoded(paint(name)) == pytest.approx(rgb, abs=1e-3)
