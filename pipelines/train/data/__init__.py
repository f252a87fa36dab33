"""What a challenger learns from: groups, weights, replay."""
