"""ROUGE and BLEU of generated answers, in Chinese and English."""
