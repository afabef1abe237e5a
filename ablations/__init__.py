"""The paper's tables: what varies, what the paper reports.

`spec.py` says what an ablation is and `report.py` prints the tables; every other file here, and in `later/`,
is one.
"""
