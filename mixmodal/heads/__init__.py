"""Heads: the law of one position given its hidden state. One file a kind, found by its name.

A head has
`loss(hidden_ND, targets, chance_N) -> [N]`                what a position costs
`draw(branches, settings, rng, banned) -> values, sure`    values, and the log-probability of each position's
`branches` are hidden states [N, D] of each guidance branch, and `chance_N` a number a position that belongs to its
document: whatever a loss draws at random is made of it. A law that is a density is `sure` of nothing: zeros.
Where it has them, these are used: `logits(hidden_ND) -> [N, V]` of an exact law; its `config` with `temperature`,
which a comparison tunes, and `tied`, whether it reads with the codec's table; `joint`, with the list `beside` of the
other joint heads of the model, with which it shares one softmax.
"""
