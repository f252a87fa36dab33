"""A small shop that lives on while its runs die in every way, and an oracle that compares."""
