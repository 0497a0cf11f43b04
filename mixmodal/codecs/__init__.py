"""Codecs: how a part becomes values on a grid, and back. One file a kind, found by its name.

A codec has `encode(part) -> Grid`, `decode(values, grid, part) -> part`, `empty(size) -> Grid`,
`embed(fields, dtype) -> [N, D]`, `read(hidden_ND, fields) -> prediction`, `coords(grid)`, `fields(grid)`, and
`blank() -> fields` of one slot that means nothing. Its file has `Config` and `build(config, width)`; a `prepare`
completes the options from the data before training.
"""
