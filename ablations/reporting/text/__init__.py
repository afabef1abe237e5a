"""The report's tables as text, Markdown, LaTeX, CSV and JSON."""
