"""Heads: what reads a language model's states out in another form than words."""
