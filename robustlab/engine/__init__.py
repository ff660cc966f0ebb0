"""Where nodes run and in which order: resolve plan, release targets, measure baselines, run cells, write the record."""
