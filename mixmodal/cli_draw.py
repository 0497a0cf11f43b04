"""The commands that draw: whole pictures for prompts, and what is missing of a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg


@dataclass
class Sample:
    """Draw pictures for prompts."""

    model: Positional[str]
    """A run's folder, a model's folder, or builtin:NAME."""
    prompt: Positional[tuple[str, ...]]
    """What to draw."""
    n: int = 1
    """How many for each prompt."""
    size: str = ""
    """SIDE or HEIGHTxWIDTH in pixels; the model's own unless given."""
    steps: int | None = None
    """Evaluations of the model for one picture."""
    guidance: float | None = None
    """How strongly the prompt is followed; 1 is plain."""
    solver: str | None = None
    """How the path from noise is followed: euler, heun (two evaluations a step) or adams."""
    seed: int = 0
    """The same seed on the same machine gives the same pictures."""
    output: Annotated[Path, arg(aliases=["-o"])] = Path("sample.png")
    """File for one picture; with several, a number is added to its name."""
    scale: int = 1
    """Enlarge the saved pictures by this factor."""
    device: str = "cpu"
    """Where the model runs: cpu, or cuda for a GPU."""

    def run(self) -> None:
        """Write the pictures."""
        _check(self.n, self.output, self.scale)
        if not self.prompt:
            raise ValueError("no prompt was given: write what to draw, in quotation marks")
        from mixmodal.api import load

        size = None
        if self.size:
            sides = self.size.lower().split("x")
            if len(sides) > 2 or not all(side.isdecimal() and int(side) for side in sides):
                raise ValueError(f"--size is {self.size!r}: write SIDE or HEIGHTxWIDTH, for example 32 or 24x48")
            size = (int(sides[0]), int(sides[-1]))
        model = load(self.model, self.device)
        pictures = model.sample(
            self.prompt,
            n=self.n,
            size=size,
            seed=self.seed,
            steps=self.steps,
            guidance=self.guidance,
            solver=self.solver,
        )
        _write(pictures, self.output, [prompt for prompt in self.prompt for _ in range(self.n)], self.scale)


@dataclass
class Fill:
    """Draw parts of a picture anew and keep the rest to the bit: --hide, --mask, --grow or --vary."""

    model: Positional[str]
    """A run's folder, a model's folder, or builtin:NAME."""
    picture: Positional[Path]
    """The picture file."""
    prompt: Positional[str] = ""
    """What the whole picture shows."""
    hide: str = ""
    """TOP,LEFT,BOTTOM,RIGHT in pixels: a box to be drawn anew."""
    mask: Path | None = None
    """A picture of the same size, black where to draw anew."""
    grow: str = ""
    """HEIGHTxWIDTH: a larger picture, with this one in the middle."""
    vary: float = 0.0
    """The share of the picture's squares to be drawn anew."""
    n: int = 1
    """How many."""
    steps: int | None = None
    """Steps for one picture; a flow takes each several times, so that what is drawn fits what is known."""
    guidance: float | None = None
    """How strongly the prompt is followed; 1 is plain."""
    seed: int = 0
    """The same seed on the same machine gives the same pictures."""
    output: Annotated[Path, arg(aliases=["-o"])] = Path("filled.png")
    """File for one picture; with several, a number is added to its name."""
    device: str = "cpu"
    """Where the model runs: cpu, or cuda for a GPU."""

    def run(self) -> None:
        """Write the pictures."""
        _check(self.n, self.output)
        from mixmodal.api import load
        from mixmodal.data.pictures import decode
        from mixmodal.filling import grown, hidden, masked, varied

        if sum((bool(self.hide), self.mask is not None, bool(self.grow), self.vary > 0)) != 1:
            raise ValueError("say what to draw anew with exactly one of --hide, --mask, --grow, --vary")
        pixels = decode(self.picture, None)
        if self.hide:
            part = hidden(pixels, _numbers(self.hide, ",", 4, "--hide", "TOP,LEFT,BOTTOM,RIGHT"))
        elif self.mask is not None:
            part = masked(pixels, decode(self.mask, None).mean(2) >= 128)
        elif self.grow:
            part = grown(pixels, _numbers(self.grow.lower(), "x", 2, "--grow", "HEIGHTxWIDTH"))
        else:
            part = varied(pixels, self.vary, seed=self.seed)
        made = load(self.model, self.device).fill(
            part, self.prompt, n=self.n, seed=self.seed, steps=self.steps, guidance=self.guidance
        )
        _write(made, self.output, [self.prompt] * len(made))


def _check(n: int, output: Path, scale: int = 1) -> None:
    """Refuse what could not be written, before anything is drawn."""
    from PIL import Image as Picture

    if n < 1 or scale < 1:
        raise ValueError(f"--n is {n} and --scale {scale}: want 1 or more")
    if Picture.registered_extensions().get(output.suffix.lower()) not in Picture.SAVE:
        raise ValueError(f"--output is {output}: give it the ending of a picture file, for example {output.stem}.png")


def _numbers(told: str, between: str, count: int, flag: str, form: str) -> tuple[int, ...]:
    pieces = told.split(between)
    if len(pieces) != count or not all(piece.strip().isdecimal() for piece in pieces):
        raise ValueError(f"{flag} is {told!r}: write {form} in pixels")
    return tuple(int(piece) for piece in pieces)


def _write(pictures: list, output: Path, told: list[str], scale: int = 1) -> None:
    """Pictures as files, numbered where there are several."""
    output.parent.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pictures):
        name = output if len(pictures) == 1 else output.with_stem(f"{output.stem}_{number}")
        if scale > 1:
            picture = picture.resize((picture.width * scale, picture.height * scale), 0)
        picture.save(name)
        print(f"{name}  {told[number]}")
