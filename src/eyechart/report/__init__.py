"""A run folder becomes one self-contained, offline HTML page; this room reads files and computes nothing."""

from eyechart.report.compare import write_comparison
from eyechart.report.gallery import write_gallery
from eyechart.report.page import write_report
from eyechart.report.summary import summary_sentences

__all__ = ["summary_sentences", "write_comparison", "write_gallery", "write_report"]
