"""Designs: one short file for each named system, its paper, its place in the table, and what differs."""
