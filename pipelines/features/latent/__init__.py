"""Latent factors: fitted by the grid, updated between."""
