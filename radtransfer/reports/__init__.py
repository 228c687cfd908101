"""Reports: pages, figures, tables and advice, from runs or from published results."""
