"""LightGBM models: parameters, boosting, and texts of trees."""
