"""The report's parts: what was measured, judged beside the paper, and put into tables and pictures."""
