"""The one generation loop: whatever a document wants is made by its stream's sampler, many documents at a time.

A sampler yields blocks of positions, keep or scratch, and is sent their hidden states. The prefix of a document is
run once and cached; a guidance branch is a further sequence with its own cache.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from mixmodal.attention import MASK_LIMIT_BYTES
from mixmodal.cache import Cache
from mixmodal.layout import after, tokens
from mixmodal.linear import narrowed
from mixmodal.model import Model, Stream
from mixmodal.objectives import Ask, Block
from mixmodal.parts import MEDIA, Document
from mixmodal.sampling import Settings
from mixmodal.sequence import Grid, Run, Sequence, Slots, collate

CAPACITY = 256  # positions of a sequence for which the cache has room from the start


@dataclass(eq=False)
class Request:
    """A document with wanted parts that are still empty, and how to fill them.

    `through` puts something in place of the heads that draw parts of other media than the speaker's: what codes, say.
    Units:   `free` lets the model open parts of its own after the last one, at most that many.
    Limits:  of `seed` times 1,000,003 and the document's key together the lowest 32 bits tell draws apart.
    """

    document: Document
    settings: Settings = field(default_factory=Settings)
    seed: int = 0
    free: int = 0
    through: Callable[[Any], Any] | None = None


@dataclass(eq=False)
class _Track:
    """One sequence in the cache: the document itself, or a guidance branch that leaves a medium out."""

    omits: str | None = None
    slot: int = -1
    origin: float = 0.0
    pending: list[Run] = field(default_factory=list)
    last: Tensor | None = None

    def add(self, run: Run) -> None:
        """Take a run that will be kept, at the next flush."""
        self.pending.append(run)
        self.origin = after(run)


@dataclass(eq=False)
class _Job:
    """Positions of one track that want running; `hidden` is filled by the loop."""

    track: _Track
    runs: list[Run]
    keep: bool
    hidden: Tensor | None = None


@dataclass(eq=False)
class _Live:
    number: int
    script: Generator
    tracks: list[_Track]
    jobs: list[_Job]


Script = Generator[list[_Job], None, Document]


@torch.inference_mode()
def generate(
    model: Model,
    requests: list[Request],
    *,
    live: int = 64,
    dtype: torch.dtype = torch.float32,
    watch: Callable[[int, Document], None] | None = None,
) -> list[Document]:
    """The documents with every wanted part made, in the order of the requests.

    `live` requests run at a time; `watch` is told of each one that is finished.
    """
    with narrowed(model, dtype):
        return _generate(model, requests, live, dtype, watch)


def _generate(
    model: Model,
    requests: list[Request],
    live: int,
    dtype: torch.dtype,
    watch: Callable[[int, Document], None] | None,
) -> list[Document]:
    device = next(model.parameters()).device
    live = max(1, min(live, len(requests)))
    # On a CPU attention is as fast in fp32, and for one position faster.
    cache = Cache(
        model.config.trunk, 2 * live, CAPACITY, dtype=dtype if device.type != "cpu" else torch.float32, device=device
    )
    # Documents in the first half, branches in the second: what runs together stands together in the cache.
    free = [list(range(live))[::-1], list(range(live, 2 * live))[::-1]]
    waiting = list(enumerate(requests))[::-1]
    done: list[Document | None] = [None] * len(requests)
    running: list[_Live] = []
    blank = model.blank()
    while waiting or running:
        while waiting and len(running) < live:
            number, request = waiting.pop()
            if not request.free and not any(map(_is_to_make, request.document.parts)):
                done[number] = request.document  # nothing is to be made
                if watch is not None:
                    watch(number, request.document)
                continue
            tracks = _tracks(model, request)
            for track, slots in zip(tracks, free, strict=False):
                track.slot = slots.pop()
                cache.clear(track.slot)
            script = _script(model, request, tracks)
            running.append(_Live(number, script, tracks, next(script)))
        if not running:
            break
        _run(model, [job for one in running for job in one.jobs], cache, dtype, live, blank)
        still = []
        for one in running:
            try:
                one.jobs = one.script.send(None)
                still.append(one)
            except StopIteration as end:
                done[one.number] = end.value
                for track, slots in zip(one.tracks, free, strict=False):
                    slots.append(track.slot)
                if watch is not None:
                    watch(one.number, end.value)
        running = still
    return done


def _is_to_make(part) -> bool:
    return part.wanted and (part.empty or part.known is not None)


def _tracks(model: Model, request: Request) -> list[_Track]:
    spoken = model.speaker.medium
    guided = request.settings.guidance != 1 and (
        request.free or any(_is_to_make(part) and part.medium != spoken for part in request.document.parts)
    )
    return [_Track(), _Track(omits=spoken)] if guided else [_Track()]


def _run(model: Model, jobs: list[_Job], cache: Cache, dtype: torch.dtype, live: int, blank: dict[str, Slots]) -> None:
    """Hidden states for every job; blocks of equal length and equal fate go through the trunk together."""
    groups: dict[tuple[int, bool], list[_Job]] = {}
    for job in jobs:
        groups.setdefault((sum(len(run) for run in job.runs), job.keep), []).append(job)
    device = cache.keys.device
    for (length, keep), group in groups.items():
        group.sort(key=lambda job: job.track.slot)
        end = max(cache.used[job.track.slot] for job in group) + length
        many = max(1, min(2 * live, MASK_LIMIT_BYTES // (length * end)))
        for first in range(0, len(group), many):
            some = group[first : first + many]
            slots = [job.track.slot for job in some]
            used = {run.stream for job in some for run in job.runs}
            batch = collate(
                [Sequence(job.runs) for job in some],
                [[row] for row in range(len(some))],
                length,
                {name: blank[name] for name in used},
                start=[cache.used[slot] for slot in slots],
            ).to(device)
            hidden = model(batch, "plain", dtype, cache, slots)
            if keep:
                cache.keep()
            for row, job in enumerate(some):
                job.hidden = hidden[row]


def _script(model: Model, request: Request, tracks: list[_Track]) -> Script:
    """Fills one document, part by part."""
    speaker = model.speaker
    rng = torch.Generator().manual_seed((request.seed * 1_000_003 + request.document.key) % (1 << 63))
    for track in tracks:
        seen = [part for part in request.document.parts if part.medium != track.omits]
        track.add(tokens(speaker, speaker.codec.begins(seen), 0.0))  # in training too, of what is left of a document
    parts, free = list(request.document.parts), request.free
    if not parts:
        parts, free = [MEDIA[speaker.medium]()], free - 1
    out = []
    while parts:
        part = parts.pop(0)
        spoken, unwritten = part.medium == speaker.medium, part.wanted and part.empty
        opened: str | None = None
        if unwritten and spoken and model.writer(part.medium) is speaker:
            media = [parts[0].medium] if parts else _writable(model) if free > 0 else []
            part, opened = yield from _speak(model, request, tracks, rng, part, media)
        elif _is_to_make(part):
            part = yield from _make(model, request, tracks, rng, part, bool(parts) or free > 0)
        else:
            _show(model, tracks, part)
        out.append(part)
        if not parts and free > 0 and not (spoken and opened is None and unwritten):
            free -= 1
            parts.append(MEDIA[opened]() if opened else MEDIA[speaker.medium]())
    return replace(request.document, parts=tuple(out))


def _show(model: Model, tracks: list[_Track], part) -> None:
    """Put a part that has its values before the tracks, clean and public.

    Raises:  ValueError if it has none.
    """
    if part.empty and part.medium != model.speaker.medium:
        raise ValueError(f"a {part.medium} that is not wanted has no values: give it some, or want it")
    speaker, reader = model.speaker, model.reader(part.medium)
    grid = reader.codec.encode(part)
    for track in tracks:
        if track.omits == part.medium:
            continue
        if reader.medium != speaker.medium:
            track.add(tokens(speaker, speaker.codec.opening(part.medium, grid.size), track.origin))
        _copy(speaker, track, reader, grid)


def _copy(speaker: Stream, track: _Track, reader: Stream, grid) -> None:
    if grid is not None and len(grid.values):
        track.add(reader.objective.show(reader.name, reader.codec, grid, track.origin))
    if reader.medium != speaker.medium:
        track.add(tokens(speaker, speaker.codec.closing(reader.medium), track.origin))


def _flush(tracks: list[_Track]) -> Generator[list[_Job], None, None]:
    """Run what is pending, once, and keep it."""
    jobs = [_Job(track, track.pending, keep=True) for track in tracks if track.pending]
    if jobs:
        yield jobs
    for job in jobs:
        job.track.last, job.track.pending = job.hidden, []


def _sample(model: Model, stream: Stream, sampler: Generator, tracks: list[_Track]) -> Generator:
    """Drive a sampler: its blocks become jobs, placed where the part begins in each track."""
    yield from _flush(tracks)
    origins = [track.origin for track in tracks]
    try:
        block: Block | None = next(sampler)
    except StopIteration as end:  # all was known
        return end.value
    while True:
        if block is None:
            hidden = [track.last for track in tracks]
        else:
            jobs = []
            # what is kept of the speaker's own part is left out of the branch that leaves that medium out
            chosen = [t for t in tracks if t.omits != stream.medium] if block.keep else tracks[: block.branches]
            for track, origin in zip(tracks, origins, strict=True):
                if track in chosen:
                    run = replace(block.run, stream=stream.name, coords=block.run.coords + origin)
                    jobs.append(_Job(track, [run], block.keep))
            yield jobs
            hidden = [job.hidden for job in jobs]
            if block.keep:
                for job in jobs:
                    job.track.origin, job.track.last = max(job.track.origin, after(job.runs[0])), job.hidden
        try:
            block = sampler.send(hidden)
        except StopIteration as end:
            return end.value


def _speak(
    model: Model, request: Request, tracks: list[_Track], rng: torch.Generator, part, media: list[str]
) -> Generator:
    """The part with the speaker's values written, and which of `media` it opened, if it ended in doing so."""
    speaker, codec = model.speaker, model.speaker.codec
    opens = _openings(model, media)
    banned = [token for token in _unwritten(model) if token not in opens]
    ask = Ask(request.settings, rng, banned, [codec.end, *codec.ends, *opens], False)
    sampler = speaker.objective.sampler(codec, speaker.head, codec.grid([]), ask)
    values = list((yield from _sample(model, speaker, sampler, tracks)))
    ended = bool(values) and values[-1] in ask.stops
    opened = codec.announced(values[-1]) if ended else None
    return codec.decode(values[:-1] if ended else values, None, part), opened


def _writable(model: Model) -> list[str]:
    return [stream.medium for stream in model.streams.values() if stream.role != "read"]


def _openings(model: Model, media: Iterable[str]) -> list[int]:
    codec, spoken = model.speaker.codec, model.speaker.medium
    return [codec.opening(medium, (1, 1, 1))[0] for medium in media if medium != spoken]


def _unwritten(model: Model) -> list[int]:
    """The tokens that stand in no text: what begins documents, and what opens, sizes and closes other media."""
    codec, spoken = model.speaker.codec, model.speaker.medium
    closes = [codec.closing(s.medium)[0] for s in model.streams.values() if s.medium != spoken]
    return [
        *codec.beginnings(),
        *closes,
        *codec.size_tokens(),
        *_openings(model, (s.medium for s in model.streams.values())),
    ]


def _make(model: Model, request: Request, tracks: list[_Track], rng: torch.Generator, part, more: bool) -> Generator:
    """The part with its values made; a clean copy is shown to what follows."""
    speaker, writer = model.speaker, model.writer(part.medium)
    if part.medium == speaker.medium:  # it has no size to announce: an end among its values ends it
        grid, ask = writer.codec.grid([]), Ask(request.settings, rng, _unwritten(model), [speaker.codec.end], False)
    else:
        if part.extent is None:
            size = yield from _choose_size(model, request, tracks, rng, part.medium)
        else:
            size = writer.codec.cells(part.extent)
            for track in tracks:
                track.add(tokens(speaker, speaker.codec.opening(part.medium, size), track.origin))
        grid = writer.codec.empty(size) if part.empty else writer.codec.encode(part)
        ask = Ask(request.settings, rng, [], [], len(tracks) > 1)
    head = writer.head if request.through is None else request.through(writer.head)
    made = yield from _sample(model, writer, writer.objective.sampler(writer.codec, head, grid, ask), tracks)
    part = writer.codec.decode(made, grid, part)
    if part.known is not None:  # it is finished: whoever puts it into another document means it as it is
        part = replace(part, known=None)
    if more:
        reader = model.reader(part.medium) if writer.objective.needs_copy else writer
        copy = None
        if writer.objective.needs_copy:
            # What a tokenizer makes of its own picture is something else: what follows sees what was drawn.
            own = reader is writer and getattr(writer.codec, "lossy", False) and grid.known is None
            copy = Grid(made, grid.cells, grid.size) if own else reader.codec.encode(part)
        for track in tracks:
            if track.omits != part.medium:
                _copy(speaker, track, reader, copy)
    return part


def _choose_size(model: Model, request: Request, tracks: list[_Track], rng: torch.Generator, medium: str) -> Generator:
    """The size the model announces for a part of `medium`, its header shown to every track."""
    codec = model.speaker.codec
    begin, origins = codec.opening(medium, (1, 1, 1))[0], [track.origin for track in tracks]
    for track in tracks:
        track.add(tokens(model.speaker, [begin], track.origin))
    banned = sorted(set(range(codec.vocabulary)) - set(codec.size_tokens()))
    sides = []
    for number in (1, 2):
        yield from _flush(tracks)
        token = int(model.speaker.head.draw([tracks[0].last[-1:]], request.settings, rng, banned)[0][0])
        sides.append(codec.side(token))
        for track, origin in zip(tracks, origins, strict=True):  # one header, as in training
            track.add(tokens(model.speaker, [token], origin, first=number))
    return (1, *sides)
