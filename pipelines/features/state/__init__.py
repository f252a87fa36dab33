"""The state that a step is folded into, and how it is stored."""
