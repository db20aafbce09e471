"""Evaluation: predictions, tables, metrics, intervals, paired comparison."""
