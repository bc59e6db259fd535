"""What parse_results.py is made of: reading runs, tables, published numbers, figures, the page, the live view."""
