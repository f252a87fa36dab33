"""Private database servers, and databases of their own in them."""
