"""Groups that a challenger learns from, their weights, and replay."""
