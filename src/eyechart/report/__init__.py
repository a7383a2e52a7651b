"""A run folder becomes one self-contained, offline HTML page; this room reads files and computes nothing."""

from eyechart.report.page import write_report

__all__ = ["write_report"]
