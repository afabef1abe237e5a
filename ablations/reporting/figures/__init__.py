"""The paper's figures and the runs' curves."""
