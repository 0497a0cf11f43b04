"""What a run leaves to look at: metrics.jsonl, a progress bar, sheets of samples, plots. Pillow only."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont
from tqdm import tqdm

from mixmodal.checkpoint import write_text
from mixmodal.parts import Document

INK, PAPER, GREY = (30, 30, 34), (255, 255, 255), (150, 150, 156)
COLOURS = ((38, 99, 196), (208, 74, 42), (46, 140, 82), (142, 78, 168), (196, 146, 20), (60, 60, 66), (20, 160, 180))


class Track:
    """Writes down how a run goes. Lines of metrics after `step` are dropped: a resumed run writes them again.

    `scores` are the losses of validation, weighed as in training, by step. Lines that a full disk does not take wait.
    """

    def __init__(self, folder: Path, step: int, say: Callable[[str], None]) -> None:
        self.folder, self.say = folder, say
        self.file = folder / "metrics.jsonl"
        self.scores: dict[int, float] = {}
        self.watched: set[int] = set()  # the steps that have a line of validation
        kept = []
        if self.file.exists():
            for line in self.file.read_text(encoding="utf8").splitlines():
                try:
                    entry = json.loads(line)
                    if entry["step"] > step:
                        continue
                except (json.JSONDecodeError, KeyError):
                    continue  # the line that a kill cut in half
                kept.append(line + "\n")
                if "valid" in entry:
                    self._remember(entry)
        write_text(self.file, "".join(kept))
        self._size = self.file.stat().st_size
        self._waiting = ""
        self.smooth: dict[str, float] = {}
        self.bar: tqdm | None = None

    def begin(self, step: int, steps: int) -> None:
        """Show the bar."""
        self.bar = tqdm(total=steps, initial=step, unit="step", dynamic_ncols=True, mininterval=1.0)

    def steps(self, steps: int) -> None:
        """Show that there will be so many steps in all."""
        self.bar.total = steps

    def step(
        self,
        step: int,
        losses: dict[str, float],
        *,
        positions: int,
        seconds: float,
        elapsed: float,
        share: float,
        skipped: dict[str, Any] | None = None,
    ) -> None:
        """Note one step: the losses, the speed, the share of the machine's matrix peak, and why it was skipped."""
        now = {**losses, "tokens_per_s": positions / seconds, "share_of_peak": share}
        for name, value in now.items():
            if not math.isfinite(value):
                continue
            self.smooth[name] = value if name not in self.smooth else 0.95 * self.smooth[name] + 0.05 * value
        self._write(
            {
                "step": step,
                **{n: round(v, 5) if math.isfinite(v) else None for n, v in losses.items()},  # JSON has no NaN
                "seconds": round(elapsed, 3),
                "tokens_per_s": round(positions / seconds),
                "share_of_peak": round(share, 4),
                **(skipped or {}),
            }
        )
        if self.bar is not None:
            told = {name: f"{self.smooth[name]:.3f}" for name in losses if name in self.smooth}
            self.bar.set_postfix(
                {**told, "tok/s": f"{self.smooth['tokens_per_s']:.0f}", "peak": f"{self.smooth['share_of_peak']:.0%}"},
                refresh=False,
            )
            self.bar.update(step - self.bar.n)

    def validation(self, step: int, found: dict) -> None:
        """Plot losses on fixed documents by level of noise, then note them: who finds the line does not do it again."""
        score = found["score"] if math.isfinite(found["score"]) else None
        entry = {"step": step, "valid": found["losses"], "score": score, "levels": found["levels"]}
        lines = {}
        for one in [*map(json.loads, self.file.read_text(encoding="utf8").splitlines()), entry]:
            for name, levels in one.get("levels", {}).items():
                lines[f"{name} at step {one['step']:,}"] = levels
        try:
            if lines:
                shown = dict(list(lines.items())[-5:])
                times = [(i + 0.5) / len(levels) for i in range(len(levels))]
                drawn = plot(shown, times, "time (0 is noise, 1 is data)", "error of velocity")
                drawn.save(self.folder / "loss_by_noise.png")
        finally:  # where the disk takes no plot, the line waits
            self._write(entry)
            self._remember(entry)
        told = "  ".join(f"{name} {value:.4f}" for name, value in found["losses"].items())
        tqdm.write(f"step {step:,}  validation  {told}")

    def samples(self, step: int, pairs: list[tuple[Document, Document]]) -> None:
        """Save a sheet of validation documents, each with what the model made of its last part."""
        home = self.folder / "samples"
        home.mkdir(exist_ok=True)
        path = home / f"step_{step:08d}.png"
        sheet(pairs).save(path)
        tqdm.write(f"step {step:,}  drawn and written: {path}")

    def __enter__(self) -> Track:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()  # also before an error is told, which would else stand behind the bar

    def end(self) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()

    def to_disk(self) -> None:
        """Wait until all lines lie on the disk, so that no checkpoint is there before the lines of its steps."""
        self._append(sync=True)

    def _remember(self, entry: dict) -> None:
        self.watched.add(entry["step"])
        if (score := entry.get("score")) is not None and math.isfinite(score):
            self.scores[entry["step"]] = score

    def _write(self, entry: dict) -> None:
        told = bool(self._waiting)
        self._waiting += json.dumps(entry) + "\n"
        self._append(told=told)

    def _append(self, sync: bool = False, told: bool = False) -> None:
        """Write what waits; where the disk does not take it, it waits on, and no half of it stays in the file."""
        try:
            with open(self.file, "a", encoding="utf8") as file:
                file.write(self._waiting)
                file.flush()
                if sync:
                    os.fsync(file.fileno())
        except OSError as error:
            os.truncate(self.file, self._size)
            if not told:
                self.say(f"{self.file} was not written ({error.strerror}): make room, its lines wait until then")
            return
        self._size += len(self._waiting.encode())
        self._waiting = ""


class Untracked(Track):
    """A track that leaves nothing: what all ranks have but the first, which writes for all."""

    def __init__(self, folder: Path, step: int, say: Callable[[str], None]) -> None:
        self.folder, self.say, self.scores, self.watched, self.bar = folder, say, {}, set(), None

    def begin(self, step: int, steps: int) -> None:
        """Nothing."""

    def steps(self, steps: int) -> None:
        """Nothing."""

    def step(self, step: int, losses: dict[str, float], **told: Any) -> None:
        """Nothing."""

    def to_disk(self) -> None:
        """Nothing."""


def font(size: int = 13) -> ImageFont.ImageFont:
    """The font of sheets and plots: the one that Pillow carries."""
    return ImageFont.load_default(size)


def sheet(pairs: Sequence[tuple[Document, Document]], columns: int = 4, side: int = 160) -> Picture.Image:
    """A picture of document pairs: on the left what was given, below it the true last part and the made one."""
    drawn = [part.pixels for pair in pairs for one in pair for part in one.parts if hasattr(part, "pixels")]
    sizes = [pixels.shape for pixels in drawn if pixels is not None]
    tall = max((round(side * height / max(height, width)) for height, width, _ in sizes), default=0)
    wide, high = side * 2 + 24, tall + 86
    rows = -(-len(pairs) // columns)
    out = Picture.new("RGB", (columns * wide, max(1, rows) * high), PAPER)
    pen = ImageDraw.Draw(out)
    for number, (true, made) in enumerate(pairs):
        x, y = (number % columns) * wide + 8, (number // columns) * high + 8
        pictures = [part for part in true.parts if getattr(part, "pixels", None) is not None]
        words = [part.text for part in true.parts[:-1] if hasattr(part, "text")]
        last = made.parts[-1]
        if pictures:
            out.paste(enlarged(pictures[-1].pixels, side), (x, y))
        if hasattr(last, "pixels"):
            out.paste(enlarged(last.pixels, side), (x + side + 4, y))
            _write_lines(pen, "asked: " + " ".join(words), x, y + tall + 4, wide - 16, INK)
        else:
            asked = " ".join([*words, "true: " + _words(true.parts[-1])])
            _write_lines(pen, asked, x, y + tall + 4, wide - 16, GREY, 2)
            _write_lines(pen, "wrote: " + _words(last), x, y + tall + 36, wide - 16, INK, 3)
    return out


def _words(part) -> str:
    return getattr(part, "text", f"({part.medium})")


def enlarged(pixels: np.ndarray, side: int) -> Picture.Image:
    """A picture fitted into a square of `side`, its pixels kept sharp."""
    scale = side / max(pixels.shape[:2])
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    return Picture.fromarray(pixels).resize(size, Picture.Resampling.NEAREST)


def _write_lines(pen: ImageDraw.ImageDraw, text: str, x: int, y: int, width: int, ink: tuple, most: int = 5) -> None:
    face, lines = font(), [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if pen.textlength(longer, font=face) > width and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    if len(lines) > most:
        lines = [*lines[: most - 1], f"{lines[most - 1]} ..."]
    for row, line in enumerate(lines):
        pen.text((x, y + 15 * row), line, fill=ink, font=face)


def plot(
    lines: dict[str, Sequence[float]],
    across: Sequence[float] | dict[str, Sequence[float]],
    x_name: str,
    y_name: str,
    size: tuple[int, int] = (720, 420),
) -> Picture.Image:
    """A plain line plot, one line for each entry; `across` is what all stand over, or what each does."""
    over = across if isinstance(across, dict) else dict.fromkeys(lines, across)
    out = Picture.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(out)
    left, top, right, bottom = 64, 20, size[0] - 20, size[1] - 48
    every = [v for values in lines.values() for v in values]
    low, high = min(0.0, *every), max(every) * 1.05 or 1.0
    first, last = (end(v for values in over.values() for v in values) for end in (min, max))

    def place(x: float, y: float) -> tuple[float, float]:
        across_share = (x - first) / ((last - first) or 1)
        return left + across_share * (right - left), bottom - (y - low) / (high - low) * (bottom - top)

    for i in range(5):
        value = low + (high - low) * i / 4
        y = place(first, value)[1]
        pen.line((left, y, right, y), fill=(228, 228, 232))
        pen.text((6, y - 8), f"{value:.3g}", fill=GREY, font=font(12))
        mark = first + (last - first) * i / 4
        pen.text((place(mark, low)[0] - 10, bottom + 6), f"{mark:.3g}", fill=GREY, font=font(12))
    pen.text((left + 4, 2), y_name, fill=INK, font=font(12))
    pen.text(((left + right) / 2 - 70, bottom + 24), x_name, fill=INK, font=font(12))
    rising = sum(values[-1] for values in lines.values()) / len(lines) > (low + high) / 2
    first_name = bottom - 16 * len(lines) - 6 if rising else top + 6  # where no line ends
    for number, (name, values) in enumerate(lines.items()):
        ink = COLOURS[number % len(COLOURS)]
        points = [place(x, y) for x, y in zip(over[name], values, strict=True)]
        pen.line(points, fill=ink, width=3)
        if len(points) < 4:
            for x, y in points:
                pen.ellipse((x - 4, y - 4, x + 4, y + 4), fill=ink)
        pen.text((right - 200, first_name + 16 * number), name, fill=ink, font=font(13))
    return out


def bars(values: dict[str, float], unit: str, width: int = 860) -> Picture.Image:
    """A plain chart of bars that lie, one for each entry, its name above it and its value behind."""
    step, left = 36, 16
    out = Picture.new("RGB", (width, step * len(values) + 40), PAPER)
    pen, most = ImageDraw.Draw(out), max(values.values()) or 1.0
    for number, (name, value) in enumerate(values.items()):
        top, end = 8 + step * number, left + value / most * (width - left - 80)
        pen.text((left, top), name, fill=INK, font=font(12))
        pen.rectangle((left, top + 17, max(end, left + 1), top + 29), fill=COLOURS[number % len(COLOURS)])
        pen.text((end + 6, top + 15), f"{value:.3g}", fill=INK, font=font(12))
    pen.text((left, step * len(values) + 14), unit, fill=GREY, font=font(12))
    return out
