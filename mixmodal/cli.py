"""The command line. It imports torch only when a command has been understood."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.conf import Positional, subcommand

from mixmodal.cli_audit import Audit, writable
from mixmodal.cli_compare import Compare
from mixmodal.cli_data import Data
from mixmodal.cli_doctor import Doctor
from mixmodal.cli_draw import Fill, Sample
from mixmodal.cli_share import Import, Merge, Push

if TYPE_CHECKING:
    from mixmodal.config import Recipe


@dataclass
class Train:
    """Train a recipe. Before it starts it tells parameters, FLOPs, memory and time."""

    recipe: Positional[str]
    """Name of a recipe (`mixmodal recipes` lists them), or the folder of a run to go on with (--resume)."""
    out: Path | None = None
    """Folder of the run; runs/RECIPE unless given."""
    resume: bool = False
    """Go on from the newest checkpoint in the folder."""
    dry_run: bool = False
    """Only tell what it would cost."""
    gpus: int = 0
    """With --dry-run: tell it for so many GPUs of a cluster."""
    gpu: str = "h200"
    """Which GPU: b200, h200, h100, a100, l40s or 4090."""
    processes: int = 1
    """How many processes of this machine train together: on a CPU, one for each core; on GPUs, one for each."""
    shard: bool = False
    """Divide the model among the processes, where it is too large for each; see docs/cluster.md."""
    data: Path | None = None
    """Your own data, whatever `mixmodal data check` takes: for recipes that read a folder (own_32)."""
    set: tuple[str, ...] = ()
    """Settings as dotted.key=value, for example optim.rate=0.001 model.trunk.depth=8."""

    def run(self) -> None:
        """Train, or tell the cost."""
        from mixmodal.config import Recipe, from_json, override
        from mixmodal.recipes import own_data, recipe

        if self.processes < 1 or self.gpus < 0:
            raise ValueError(f"--processes is {self.processes} and --gpus {self.gpus}: want 1 or more, and 0 or more")
        if self.gpu != Train.gpu and not self.gpus:
            raise ValueError(f"--gpu {self.gpu} says of which kind --gpus are: add --dry-run --gpus N")
        if self.gpus and not self.dry_run:
            raise ValueError("--gpus only tells a cost: add --dry-run, or start with torchrun (docs/cluster.md)")
        named = Path(self.recipe)
        own = (named / "recipe.json").exists()
        if own and (not self.resume or self.out not in (None, named)):
            raise ValueError(
                f"{named} holds a run: go on with it by --resume, without --out; or train on from it in another folder,"
                f" mixmodal train RECIPE --set start={named}"
            )
        folder = self.out or (named if own else Path("runs") / self.recipe)
        kept = folder / "recipe.json"
        if self.resume and kept.exists():
            chosen = self._resumed(
                folder, from_json(Recipe, json.loads(kept.read_text(encoding="utf8")), "recipe"), own
            )
        elif self.resume and (named.is_dir() or len(named.parts) > 1):
            raise ValueError(
                f"no run is in {named}: give the folder of a run, or the command that it was begun with and --resume"
            )
        else:
            chosen = recipe(self.recipe)
        if self.data is not None and not own:
            chosen = own_data(chosen, self.data)
        chosen = override(chosen, self.set)
        from mixmodal.chain import standing, untrained

        chosen = untrained(chosen) if self.dry_run else standing(chosen, folder)
        if self.dry_run:
            self._tell(chosen)
        elif self.processes > 1:
            from mixmodal.parallel import together
            from mixmodal.train import train_as

            together(self.processes, train_as, chosen, folder, self.resume, sharded=self.shard)
        else:
            from mixmodal.parallel import joined
            from mixmodal.train import train_as

            with joined(self.shard) as ranks:
                train_as(ranks, chosen, folder, self.resume)

    def _resumed(self, folder: Path, kept: Recipe, own: bool) -> Recipe:
        """The recipe of a run to go on with, before settings: its own, or the one that the command names again.

        Raises:  ValueError if the command asks for another.
        """
        from mixmodal.guard import WATCHING
        from mixmodal.recipes import recipe

        changes = self.data is not None or any(key.partition("=")[0].strip() not in WATCHING for key in self.set)
        if own and changes:
            raise ValueError(
                f"a resumed run keeps its recipe, but for {', '.join(WATCHING)}: for anything else train on in"
                f" another folder with --set start={folder} and your settings"
            )
        if not own and recipe(self.recipe).name != kept.name:
            raise ValueError(f"{folder} holds a run of {kept.name}: name that, or the folder alone, or another --out")
        return recipe(self.recipe) if changes else kept  # that it is the same is asked where it goes on

    def _tell(self, chosen: Recipe) -> None:
        from mixmodal.cluster import job_of, lines
        from mixmodal.prepare import EXAMPLES, prepare, refuse_shards

        run = prepare(chosen)
        if self.shard:
            refuse_shards(run.recipe, run.model)
        if self.gpus:
            try:
                refuse_shards(run.recipe, run.model)
                way = self.shard or None
            except ValueError:
                way = False
            run.model.cpu()  # where the batches are
            job = job_of(run.model, run.recipe, [run.loader.next(0.999) for _ in range(EXAMPLES)])
            print("\n".join(lines(job, self.gpu, self.gpus, chosen.steps, way, chosen.minutes)))
            return
        for line in run.cost.lines(run.peak, chosen.steps, chosen.minutes, chosen.optim.settle):
            print(line)
        if self.processes > 1:
            print(f"all of it if one process did the work of those {self.processes}, with the machine for itself")


@dataclass
class Caption:
    """Write about pictures."""

    model: Positional[str]
    """A run's folder, a model's folder, or builtin:NAME."""
    files: Positional[tuple[Path, ...]]
    """Picture files."""
    prompt: str = ""
    """A question or an opening, put after the picture."""
    seed: int = 0
    """For drawn words; the likeliest are taken unless a temperature is given."""
    temperature: float | None = None
    """0 takes the likeliest word; the model's own unless given."""
    device: str = "cpu"
    """Where the model runs: cpu, or cuda for a GPU."""

    def run(self) -> None:
        """Print one line for each picture."""
        from mixmodal.api import load

        if not self.files or (lacking := [name for name in self.files if not name.exists()]):
            raise ValueError(f"{lacking[0]} is not there: give picture files" if self.files else "give picture files")
        said = load(self.model, self.device).caption(
            list(self.files), prompt=self.prompt, seed=self.seed, temperature=self.temperature
        )
        for name, line in zip(self.files, said, strict=True):
            print(f"{name}: {line}")


@dataclass
class Eval:
    """Score a model exactly on a world with answers."""

    model: Positional[str]
    """A run's folder, a model's folder, or builtin:NAME."""
    suite: str
    """Name of a suite: scenes, questions, inpainting, glyphs, likeness or reconstruction."""
    n: int = 500
    """How many are asked in each direction."""
    json: Path | None = None
    """File for the scores."""
    seed: int = 0
    """Seed of the questions and of the samples."""
    steps: int | None = None
    """Evaluations of the model for one picture."""
    guidance: float | None = None
    """How strongly prompts are followed."""
    solver: str | None = None
    """How the path from noise is followed: euler, heun (two evaluations a step) or adams."""
    set: tuple[str, ...] = ()
    """The suite's own options as key=value, for example level=full size=32."""
    device: str = "cpu"
    """Where the model runs: cpu, or cuda for a GPU."""

    def run(self) -> None:
        """Print the scores, and save them."""
        from mixmodal.api import load
        from mixmodal.checkpoint import write_json
        from mixmodal.judge.suites import Exam, examine, lines

        if self.n < 1 or self.seed < 0:
            raise ValueError(f"--n is {self.n} and --seed {self.seed}: want 1 or more, and 0 or more")
        if self.json:
            writable(self.json)
        loaded = load(self.model, self.device)
        from mixmodal.cli_audit import options as read

        options = read(self.set)
        if self.suite == "likeness" and "source" not in options and (held := _held_out(self.model)):
            options["source"] = held
        exam = Exam(
            loaded.model,
            loaded.about,
            self.n,
            self.seed,
            loaded.settings(steps=self.steps, guidance=self.guidance, solver=self.solver),
            loaded.dtype,
            options,
        )
        scores = examine(self.suite, exam)
        told = [v for name, v in scores.items() if isinstance(v, (dict, float)) and name not in ("seconds", "settings")]
        if not any(isinstance(value, float) or "value" in value for value in told):
            raise ValueError(f"the suite {self.suite!r} asks nothing that this model has learned: take another suite")
        print("\n".join(lines(scores)))
        if self.json:
            self.json.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.json, {"model": self.model, "steps": loaded.about.get("steps"), **scores})


def _held_out(model: str) -> dict[str, Any]:
    """The first source that the run of a model is validated on; nothing where it says of none."""
    from mixmodal.checkpoint import find_model
    from mixmodal.data import OF_MIXTURE

    file = find_model(model).parent / "recipe.json"
    valid = json.loads(file.read_text(encoding="utf8")).get("valid", {}) if file.exists() else {}
    first = next(iter(valid.values()), {})
    return {key: value for key, value in first.items() if key not in OF_MIXTURE[1:]}


@dataclass
class Info:
    """Tell what a model is: its streams, its size, how it was trained."""

    model: Positional[str]
    """A run's folder, a model's folder, or builtin:NAME."""
    prose: bool = False
    """Measure its text ability too, which takes a while: bits per byte of held-out prose."""

    def run(self) -> None:
        """Print it."""
        from mixmodal.api import load

        loaded = load(self.model)
        trunk = loaded.model.config.trunk
        print(f"parameters  {sum(p.numel() for p in loaded.model.parameters()) / 1e6:.2f} M")
        print(f"trunk       width {trunk.width}, depth {trunk.depth}, {trunk.heads} heads of {trunk.head_size}")
        for name, stream in loaded.model.config.streams.items():
            kinds = [spec["kind"] for spec in (stream.codec, stream.objective, stream.head) if spec]
            codec = loaded.model.streams[name].codec
            rank = ""
            if hasattr(codec, "embedding_rank"):
                rank = f", rank {(found := codec.embedding_rank())} of {codec.size}"
                rank += f" (drops {codec.size - found} directions of a patch)" * (found < codec.size)
            bits = f", {codec.bits:g} bits a position" if hasattr(codec, "bits") else ""
            print(f"stream      {name}: {stream.medium} by {' + '.join(kinds)}{rank}{bits}")
        for key, value in loaded.about.items():
            print(f"{key:11} {value if isinstance(value, (str, int, float)) else json.dumps(value)}")
        if self.prose:
            print(f"prose       {loaded.bits_per_byte():.3f} bits per byte of held-out text")


@dataclass
class Recipes:
    """List the recipes."""

    def run(self) -> None:
        """Print each with the first line of its description."""
        from mixmodal.recipes import recipes

        for name, function in recipes().items():
            print(f"{name:24} {(function.__doc__ or '').splitlines()[0]}")


@dataclass
class Demo:
    """Train a small model from nothing, before your eyes, and make a page of what it drew and wrote."""

    out: Path = Path("runs/demo")
    """Folder for the run and the page."""
    minutes: float = 0.0
    """Minutes of training; the recipe's own unless given."""
    seed: int = 0
    """Seed of the training."""
    n: int = 500
    """How many held-out sentences and pictures are judged."""

    def run(self) -> None:
        """Show the model in the box, train, judge, write the page."""
        from mixmodal.demo import demo

        demo(self.out, minutes=self.minutes, seed=self.seed, n=self.n)


Command = (
    Annotated[Train, subcommand("train")]
    | Annotated[Sample, subcommand("sample")]
    | Annotated[Fill, subcommand("fill")]
    | Annotated[Caption, subcommand("caption")]
    | Annotated[Eval, subcommand("eval")]
    | Annotated[Compare, subcommand("compare")]
    | Annotated[Info, subcommand("info")]
    | Annotated[Recipes, subcommand("recipes")]
    | Annotated[Data, subcommand("data")]
    | Annotated[Audit, subcommand("audit")]
    | Annotated[Import, subcommand("import")]
    | Annotated[Merge, subcommand("merge")]
    | Annotated[Push, subcommand("push")]
    | Annotated[Doctor, subcommand("doctor")]
    | Annotated[Demo, subcommand("demo")]
)


def main(arguments: list[str] | None = None) -> None:
    """Run the command that the arguments spell."""
    command = tyro.cli(
        Command,
        args=arguments,
        prog="mixmodal",
        description="One transformer for text and pictures: train, sample, caption, judge.",
    )
    try:
        command.run()
    except (ValueError, OSError) as error:
        print(f"mixmodal: {error}", file=sys.stderr)
        sys.exit(2)
    except ImportError as error:
        if "pip install" not in str(error):
            raise  # a mistake of ours; what an extra brings along says how to get it
        print(f"mixmodal: {error}", file=sys.stderr)
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise  # a mistake of ours, to be reported with where it happened
        why = (str(error).strip() or "no more is there").splitlines()[0]
        print(f"mixmodal: the memory does not suffice ({why}): take fewer rows or a smaller model", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as stop:
        print(f"mixmodal: {str(stop) or 'stopped; what is saved is kept, --resume goes on from it'}", file=sys.stderr)
        sys.exit(getattr(stop, "code", 130))
