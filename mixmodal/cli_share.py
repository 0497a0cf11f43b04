"""Commands that bring models in and give them away. Like all commands they import torch when they are run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional


def _empty(folder: Path) -> None:
    """Refuse a folder in which a model would cover something."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is there and holds something: choose another folder")


@dataclass
class Import:
    """Start a model from a Qwen3 or Llama: its trunk and its text, with the other streams of a recipe new beside."""

    source: Positional[str]
    """A folder in the format of transformers, or hub:OWNER/NAME."""
    out: Positional[Path]
    """Folder for the model; `mixmodal train RECIPE --set start=OUT` trains on from it."""
    recipe: str = ""
    """The recipe whose other streams are added; text alone unless given."""
    seed: int = 0
    """Seed of what is new: rows of the table, other streams."""
    prose: bool = False
    """Measure the bits per byte of held-out prose, for comparison after training."""
    set: tuple[str, ...] = ()
    """Settings of the recipe: model.trunk.adapter_rank=8 or model.trunk.frozen=true keep the weights that come, trunk
    and words; with model.streams.text.codec.kept=0 too, the words learn."""

    def run(self) -> None:
        """Write the model, and tell what it is."""
        _empty(self.out)
        if self.set and not self.recipe:
            raise ValueError("--set changes a recipe, and none is given: add --recipe NAME (`mixmodal recipes`)")
        from mixmodal.api import Loaded
        from mixmodal.compute import fast_dtype
        from mixmodal.config import override
        from mixmodal.foreign import load
        from mixmodal.recipes import recipe

        chosen = override(recipe(self.recipe), self.set) if self.recipe else None
        model, about = load(self.source, chosen.model if chosen else None, self.seed)
        if chosen:
            shown = {key: getattr(chosen, key) for key in ("guidance", "steps_sampled", "sample_size")}
            about = {**about, "recipe": chosen.name, **shown}
        loaded = Loaded(model, about, fast_dtype())
        if self.prose:
            about["bits_per_byte"] = loaded.bits_per_byte()
            print(f"prose       {about['bits_per_byte']:.3f} bits per byte of held-out text, before any training")
        loaded.save_pretrained(self.out)
        learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
        total = sum(p.numel() for p in model.parameters())
        print(f"parameters  {total / 1e6:.2f} M, of which {learning / 1e6:.2f} M learn")
        print(f"the model is in {self.out}: mixmodal train {self.recipe or 'RECIPE'} --set start={self.out}")


@dataclass
class Merge:
    """Save a model that was trained with adapters as one without: each added to the matrix beside it."""

    model: Positional[str]
    """A run's folder, a model's folder, builtin:NAME or hub:OWNER/NAME."""
    out: Positional[Path]
    """Folder for the merged model."""

    def run(self) -> None:
        """Write the merged model."""
        _empty(self.out)
        from mixmodal.api import load

        load(self.model).merged().save_pretrained(self.out)
        print(f"the model is in {self.out}")


@dataclass
class Push:
    """Put a model on the hub, with a card that tells how it was made; wants huggingface_hub and your login."""

    model: Positional[str]
    """A run's folder, a model's folder, or builtin:NAME."""
    name: Positional[str]
    """OWNER/NAME on the hub."""
    licence: str = ""
    """Licence of the weights as the hub spells it, for example apache-2.0; that of the data may bind you."""
    private: bool = False
    """Let nobody else see it."""

    def run(self) -> None:
        """Send it, and print where it stands."""
        from mixmodal.sharing import push_to_hub

        print(push_to_hub(self.model, self.name, licence=self.licence, private=self.private))
