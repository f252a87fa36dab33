"""Capture by triggers that write each change into a table of the shop's database."""
