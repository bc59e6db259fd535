"""The parts of parse_results.py: reading runs, tables, published numbers, figures, the page, the live view."""
