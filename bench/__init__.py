"""Figures: what it costs, beside what it is compared with."""
