"""Heads: the law of one position given its hidden state. One file a kind, found by its name.

A head has `loss(hidden_ND, targets) -> [N]` and `draw(hidden_ND, settings, rng) -> values`.
"""
