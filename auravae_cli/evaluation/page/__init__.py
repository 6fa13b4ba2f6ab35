"""The page of an evaluation: one self-contained HTML file. Imports no torch."""
