"""How well answers are: golden sets, metrics, the release gate, replay."""
