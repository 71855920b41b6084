"""PGExp (Chen et al., AAAI 2023): amodal masks by prior-guided expansion."""
