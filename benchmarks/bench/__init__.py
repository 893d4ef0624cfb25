"""Measuring a bundle: every engine in fresh processes of its own, one report, one page, one comparison."""

from .report import Report
from .saved import read_report, report_schema

__all__ = ["Report", "read_report", "report_schema"]
