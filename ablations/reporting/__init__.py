"""The parts of the report: records are matched to cells, compared with the paper, and put into tables."""
