"""How large a network is: the formulas of the paper, what it prints, and what is counted."""
