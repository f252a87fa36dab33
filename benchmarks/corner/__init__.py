"""A corner shop in every capture mode, busy with writers while extractions are killed."""
