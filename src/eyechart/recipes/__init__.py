"""How every zoo model was trained and every study was run: one page each, read top to bottom."""
