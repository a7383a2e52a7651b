"""Choices that do not exist, without the type checks of the test run standing before them."""

import subprocess
import sys

CALLS = [
    "stats.cluster_bootstrap([1, 0], [1, 2], seed=0, method='bc')",
    "stats.hierarchical_difference([[0, 1], [1, 0]], [[0, 1], [1, 0]], runs='Paired', seed=0)",
    "stats.pearson([1, 2, 3, 4], [1, 3, 2, 4], interval='bonett-wright')",
    "stats.spearman([1, 2, 3, 4], [1, 3, 2, 4], interval='fisher')",
]

SCRIPT = """
from eyechart.core import stats
from eyechart.core.errors import UserError
for call in {calls!r}:
    try:
        eval(call)
    except UserError as error:
        print(error)
"""


def test_a_choice_that_does_not_exist_is_named():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(calls=CALLS)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "no bootstrap method named 'bc'. Did you mean 'bca'? There are: bca, percentile.",
        "no relation of runs named 'Paired'. Did you mean 'paired'? There are: independent, paired.",
        "no interval named 'bonett-wright'. There are: bootstrap, fisher.",
        "no interval named 'fisher'. There are: bonett-wright, bootstrap.",
    ]


def test_the_package_loads_no_torch_and_no_scipy_stats():
    """`scipy.stats` alone costs more than a second."""
    script = (
        "import sys, eyechart.core.stats; print([m for m in ('torch', 'scipy.stats') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
