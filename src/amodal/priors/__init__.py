"""The expansion prior (Sec. 3.1): encoder E, solvers S^r and S^f, transformations T^r and T^f, memory bank."""
