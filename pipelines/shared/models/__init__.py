"""Models as two rooms share them: text and card, challengers, vocabulary."""
