"""The groups of a surface: generated from baskets, or logged as lists."""
