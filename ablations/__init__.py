"""The paper's tables: what varies, what the paper reports."""
