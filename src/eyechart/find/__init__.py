"""Find what an encoder cannot tell apart: similarities under two encoders, and the pairs on which they differ."""

from eyechart.find.join import Certificate, Mined, mine_pairs
from eyechart.find.keep import Columns
from eyechart.find.suspects import MOST_COMPARED, Comparison, PairSimilarity, compare_pairs

__all__ = [
    "MOST_COMPARED",
    "Certificate",
    "Columns",
    "Comparison",
    "Mined",
    "PairSimilarity",
    "compare_pairs",
    "mine_pairs",
]
