"""Templates: from a row to token ids, labels and weights."""
