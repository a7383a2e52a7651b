"""The arithmetic of mixtures against references so slow that they can be checked by reading."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eyechart.core.errors import UserError
from eyechart.models.mixtures.mixing import (
    added,
    channel_statistics,
    concatenated,
    interleaved,
    resampled,
    square,
    standardised,
)

SIZES = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 5))


def features(images: int, patches: int, dim: int, *, seed: int = 0) -> torch.Tensor:
    return torch.randn(images, patches, dim, generator=torch.Generator().manual_seed(seed))


def interleaved_by_hand(first, second):
    rows = []
    for image in range(len(first)):
        tokens = []
        for patch in range(first.shape[1]):
            tokens.append(first[image, patch])
            tokens.append(second[image, patch])
        rows.append(torch.stack(tokens))
    return torch.stack(rows)


def added_by_hand(first, second, alpha):
    out = torch.empty_like(first)
    for place in range(first.numel()):
        out.view(-1)[place] = alpha * first.view(-1)[place] + (1 - alpha) * second.view(-1)[place]
    return out


@given(SIZES, st.integers(0, 9))
@settings(deadline=None, max_examples=25)
def test_tokens_take_turns_first_even_second_odd(sizes, seed):
    images, rows, columns, dim = sizes
    first = features(images, rows * columns, dim, seed=seed)
    second = features(images, rows * columns, dim, seed=seed + 100)
    mixed = interleaved(first, second)
    assert torch.equal(mixed, interleaved_by_hand(first, second))
    assert torch.equal(mixed[:, 0::2], first)
    assert torch.equal(mixed[:, 1::2], second)


@given(SIZES, st.floats(0, 1))
@settings(deadline=None, max_examples=25)
def test_added_is_the_weighted_sum_number_by_number(sizes, alpha):
    images, rows, columns, dim = sizes
    first, second = features(images, rows * columns, dim), features(images, rows * columns, dim, seed=1)
    assert torch.equal(added(first, second, alpha), added_by_hand(first, second, alpha))


def test_alpha_is_the_share_of_the_first():
    first, second = torch.ones(1, 4, 2), torch.zeros(1, 4, 2)
    assert torch.equal(added(first, second, 0.25), torch.full((1, 4, 2), 0.25))


def test_concatenated_keeps_each_in_its_own_channels():
    first, second = features(2, 4, 3), features(2, 4, 5, seed=1)
    mixed = concatenated(first, second)
    assert torch.equal(mixed[..., :3], first)
    assert torch.equal(mixed[..., 3:], second)


@pytest.mark.parametrize("mix", [lambda a, b: added(a, b, 0.5), interleaved, concatenated])
def test_features_that_do_not_fit_are_refused(mix):
    with pytest.raises(UserError, match=r"\[1, 4, 3\] and \[1, 9, 3\]"):
        mix(features(1, 4, 3), features(1, 9, 3))


@given(st.integers(1, 4), st.integers(1, 4), st.sampled_from(["bilinear", "bicubic", "area", "nearest"]))
@settings(deadline=None, max_examples=25)
def test_equal_grids_are_left_alone_and_a_plain_field_stays_plain(rows, columns, how):
    given_features = features(1, rows * columns, 3)
    assert resampled(given_features, (rows, columns), (rows, columns), how) is given_features
    plain = torch.full((1, rows * columns, 3), 2.5)
    assert torch.allclose(resampled(plain, (rows, columns), (3, 2), how), torch.full((1, 6, 3), 2.5))


def test_area_averages_whole_cells_row_by_row():
    grid = torch.arange(8.0).reshape(1, 8, 1)  # 2 rows of 4
    assert resampled(grid, (2, 4), (1, 2), "area").flatten().tolist() == [2.5, 4.5]
    assert resampled(grid, (2, 4), (2, 2), "area").flatten().tolist() == [0.5, 2.5, 4.5, 6.5]


def bilinear_by_hand(grid, size):
    """Each cell reads the place of its middle; beyond the outermost middles the border holds."""
    rows, columns, _ = grid.shape
    out = torch.zeros(*size, grid.shape[2])
    for y in range(size[0]):
        for x in range(size[1]):
            down = min(max((y + 0.5) * rows / size[0] - 0.5, 0), rows - 1)
            across = min(max((x + 0.5) * columns / size[1] - 0.5, 0), columns - 1)
            for r in range(rows):
                for c in range(columns):
                    weight = max(0, 1 - abs(down - r)) * max(0, 1 - abs(across - c))
                    out[y, x] += weight * grid[r, c]
    return out


@pytest.mark.parametrize(("grid", "wanted"), [((3, 5), (4, 2)), ((2, 2), (5, 3)), ((4, 3), (4, 6))])
def test_bilinear_reads_between_the_middles_of_cells(grid, wanted):
    given_features = features(1, grid[0] * grid[1], 2)
    found = resampled(given_features, grid, wanted, "bilinear").reshape(*wanted, 2)
    assert torch.allclose(found, bilinear_by_hand(given_features.reshape(*grid, 2), wanted), atol=1e-6)


def test_patches_that_fill_no_such_grid_are_refused():
    with pytest.raises(UserError, match="6 patches do not fill a grid of 2 x 2"):
        resampled(features(1, 6, 1), (2, 2), (2, 2), "bilinear")
    with pytest.raises(UserError, match="6 patches are no square"):
        square(6)


def test_statistics_are_each_channels_own_mean_and_deviation():
    given_features = features(3, 5, 4)
    found = channel_statistics(given_features)
    for channel in range(4):
        numbers = given_features[..., channel].flatten().tolist()
        mean = sum(numbers) / len(numbers)
        deviation = (sum((one - mean) ** 2 for one in numbers) / len(numbers)) ** 0.5
        assert float(found.mean[channel]) == pytest.approx(mean, abs=1e-6)
        assert float(found.deviation[channel]) == pytest.approx(deviation, rel=1e-5)
    assert found.tokens == 15


@given(st.integers(0, 50), st.floats(-1e3, 1e3), st.floats(0.01, 100))
@settings(deadline=None, max_examples=25)
def test_standardised_features_have_mean_0_and_deviation_1_whatever_the_scale(seed, shift, scale):
    given_features = features(2, 8, 3, seed=seed) * scale + shift
    mean, deviation, _ = channel_statistics(given_features)
    again = channel_statistics(standardised(given_features, mean, deviation))
    assert torch.allclose(again.mean, torch.zeros(3), atol=1e-3 + abs(shift) / scale * 1e-6)
    assert torch.allclose(again.deviation, torch.ones(3), rtol=1e-2)


def test_a_channel_that_never_changes_is_left_at_nought():
    given_features = torch.cat([features(1, 6, 1), torch.full((1, 6, 1), 7.0)], dim=-1)
    mean, deviation, _ = channel_statistics(given_features)
    assert deviation[1] == 1
    assert torch.equal(standardised(given_features, mean, deviation)[..., 1], torch.zeros(1, 6))


@pytest.mark.parametrize("wrong", [torch.zeros(1, 1, 3), torch.full((1, 4, 3), torch.nan)])
def test_statistics_of_too_little_or_of_no_numbers_are_refused(wrong):
    with pytest.raises(UserError, match="two or more patches of finite numbers"):
        channel_statistics(wrong)
