"""NEFTune: noise on the embeddings while training."""
