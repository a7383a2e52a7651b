"""Statistics for every room: rates, bootstraps, paired tests, correlations and power, each with its n."""

from eyechart.core.stats.bootstrap import (
    Estimate,
    cluster_bootstrap,
    cluster_rate,
    hierarchical_bootstrap,
    hierarchical_difference,
)
from eyechart.core.stats.correlation import Correlation, pearson, spearman
from eyechart.core.stats.crossed import crossed_mean, crossed_ratio
from eyechart.core.stats.paired import (
    PairedTest,
    RunsTest,
    exact_p,
    holm,
    mcnemar_exact,
    sign_flip_test,
    sign_test,
)
from eyechart.core.stats.power import (
    Detectable,
    SmallestGain,
    fewest_hits_above_chance,
    mcnemar_power,
    minimal_detectable_difference,
    smallest_significant_gain,
)
from eyechart.core.stats.rates import Rate, percentile_of, wilson
from eyechart.core.stats.ratios import Ratio, cluster_mean, cluster_ratios

__all__ = [
    "Correlation",
    "Detectable",
    "Estimate",
    "PairedTest",
    "Rate",
    "Ratio",
    "RunsTest",
    "SmallestGain",
    "cluster_bootstrap",
    "cluster_mean",
    "cluster_rate",
    "cluster_ratios",
    "crossed_mean",
    "crossed_ratio",
    "exact_p",
    "fewest_hits_above_chance",
    "hierarchical_bootstrap",
    "hierarchical_difference",
    "holm",
    "mcnemar_exact",
    "mcnemar_power",
    "minimal_detectable_difference",
    "pearson",
    "percentile_of",
    "sign_flip_test",
    "sign_test",
    "smallest_significant_gain",
    "spearman",
    "wilson",
]
