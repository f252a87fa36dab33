"""The features: how well they rank, and how long they take."""
