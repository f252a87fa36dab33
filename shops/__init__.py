"""The shops that Freshrank knows: one folder each, a declaration and, if bundled, its loader."""
