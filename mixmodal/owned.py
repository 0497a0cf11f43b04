"""What each rank owns of a model.

Every parameter has one owner: there its gradient is added up over all ranks, its optimizer moves it whole, its average
is kept and saved, and from there its new value goes out. So nothing is moved or kept twice, Muon has whole matrices
where the model is sharded too, and a checkpoint holds whole tensors, whatever the number of ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch import distributed as dist

from mixmodal.parallel import ALONE, Ranks


class Owned:
    """The parameters of a model that this rank owns, each of them whole: alone, all of them.

    It can stand where an average of weights or a checkpoint asks a model for its parameters.
    """

    def __init__(self, model: nn.Module, ranks: Ranks = ALONE) -> None:
        self.model, self.ranks = model, ranks
        self._all = dict(model.named_parameters())
        self._groups = {name: [n for n, _ in named] for name, named in model.groups().items()}
        self.owner = _dealt(self._all, self._groups, ranks.count)
        self._of = [[n for n in self._all if self.owner[n] == rank] for rank in range(ranks.count)]
        self._learning: dict[bool, list[list[str]]] = {}  # before the trunk rests, and from then on
        self._mine: dict[str, nn.Parameter] = {}
        self._board = None if ranks.shard else ranks.board(4 * sum(p.numel() for p in self._all.values()))
        self._divided = {name for name, parameter in self._all.items() if hasattr(parameter, "full_tensor")}
        for name, parameter in self._all.items():
            divided = name in self._divided
            whole = parameter.detach().full_tensor() if divided else parameter
            if self.owner[name] == ranks.rank:
                self._mine[name] = (
                    nn.Parameter(whole.clone(), requires_grad=parameter.requires_grad) if divided else parameter
                )

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Name and parameter, in the model's order."""
        yield from self._mine.items()

    def state_dict(self) -> dict[str, Tensor]:
        """The values by name."""
        return {name: parameter.detach() for name, parameter in self._mine.items()}

    def groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """The parameters that learn, by how they are to be optimized, as the model groups them."""
        return {g: [(n, self._mine[n]) for n in names if n in self._mine] for g, names in self._groups.items()}

    def load_state_dict(self, weights: Mapping[str, Tensor], strict: bool = True) -> None:
        """Give the model, on all ranks, these values of what each owns.

        Raises:  ValueError if one is missing.
        """
        if missing := [name for name in self._mine if name not in weights]:
            raise ValueError(f"the weights lack {missing[0]}: they are of another model, so train anew")
        with torch.no_grad():
            for name, parameter in self._mine.items():
                parameter.copy_(weights[name])
        self.spread()

    # What goes between ranks

    def gather(self, settled: bool = False) -> None:
        """Give each owned parameter the sum of its gradients over all ranks, in the order of the ranks.

        `settled`: of those that learn when the trunk rests.
        """
        if self.ranks.count == 1:
            return
        if settled not in self._learning:
            self._learning[settled] = self._agreed()
        here, learning = self.ranks.rank, self._learning[settled]
        gradients = {n: self._gradient(n) for names in learning for n in names}
        parts = self._exchanged(
            [[gradients[n].flatten() for n in names] for names in learning],
            [self._size(learning[here], rank) for rank in range(self.ranks.count)],
        )
        for parameter in self._all.values():
            parameter.grad = None
        if self.ranks.shard:  # which added them up on the way
            split = [self._split(learning[here], part, rank) for rank, part in enumerate(parts)]
            for name in learning[here]:
                self._mine[name].grad = torch.cat([part[name] for part in split])
        else:
            total = parts[0] + parts[1]
            for part in parts[2:]:
                total += part
            for name, gradient in self._split(learning[here], total, here).items():
                self._mine[name].grad = gradient

    def clip(self, limit: float) -> Tensor:
        """The norm of the gradient of all parameters, which is then no longer than `limit`, where that is not 0."""
        mine = list(self._mine.values())
        if self.ranks.count == 1:
            return nn.utils.clip_grad_norm_(mine, limit or float("inf"))
        own = nn.utils.get_total_norm([p.grad for p in mine if p.grad is not None])
        norm = self.ranks.total(own.to(next(self.model.parameters()).device).square()).sqrt()
        nn.utils.clip_grads_with_norm_(mine, limit or float("inf"), norm)
        return norm

    @torch.no_grad()
    def spread(self, settled: bool | None = None) -> None:
        """Give every rank the values that the owners have: of all parameters, or of those that `gather` was about."""
        ranks = self.ranks
        if ranks.count == 1:
            return
        of = self._of if settled is None else self._learning[settled]
        mine, device = of[ranks.rank], next(self.model.parameters()).device
        if ranks.shard:
            for module in self.model.modules():
                if hasattr(module, "reshard"):
                    module.reshard()
            parts = self._exchanged(
                [[self._mine[n][self._rows(n, rank)].flatten() for n in mine] for rank in range(ranks.count)],
                [self._size(names, ranks.rank) for names in of],
            )
        elif self._board:
            parts = self._board.shown([self._mine[n].flatten() for n in mine], *(self._size(names, 0) for names in of))
        else:
            parts = [torch.empty(self._size(names, 0), device=device) for names in of]
            if mine:
                torch.cat([self._mine[n].flatten() for n in mine], out=parts[ranks.rank])
            for rank, part in enumerate(parts):
                dist.broadcast(part, rank)
        for names, part in zip(of, parts, strict=True):
            for name, piece in self._split(names, part, ranks.rank).items():
                if name in self._divided:
                    self._all[name].to_local().copy_(piece)
                elif name not in self._mine:
                    self._all[name].copy_(piece)

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A tensor of each parameter from the `tensors` of the owners, on the CPU of the first rank; nothing elsewhere.

        Limits:  the first machine has room for all of them.
        """
        ranks, out = self.ranks, {}
        for rank, names in enumerate(self._of):
            if ranks.first and rank == 0:
                out |= {n: tensors[n].detach().cpu() for n in names}
            elif rank == ranks.rank and names:
                dist.send(torch.cat([tensors[n].detach().flatten().cpu() for n in names]), 0)
            elif ranks.first and names:
                sizes = [self._all[n].numel() for n in names]
                dist.recv(flat := torch.empty(sum(sizes)), rank)
                shaped = zip(names, flat.split(sizes), strict=True)
                out |= {n: piece.view(self._all[n].shape) for n, piece in shaped}
        return {n: out[n] for n in self._all if n in out}

    def _agreed(self) -> list[list[str]]:
        """Which parameters of each owner have a gradient on some rank: all ranks send the same ones."""
        has = self.ranks.told([int(p.grad is not None) for p in self._all.values()])
        some = {name for name, *there in zip(self._all, *has, strict=True) if any(there)}
        return [[name for name in names if name in some] for names in self._of]

    def _gradient(self, name: str) -> Tensor:
        parameter = self._all[name]
        if self.ranks.shard:
            held = parameter if parameter.grad is None else parameter.grad
            return held.to_local() if parameter.grad is not None else torch.zeros_like(held.to_local())
        return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad

    def _rows(self, name: str, rank: int) -> slice:
        """The rows of a parameter that a rank holds: all of them, or its chunk."""
        if name not in self._divided:
            return slice(None)
        rows = self._all[name].shape[0]
        chunk = -(-rows // self.ranks.count)
        return slice(min(rows, rank * chunk), min(rows, (rank + 1) * chunk))

    def _size(self, names: list[str], rank: int) -> int:
        return sum(self._shape(name, rank).numel() for name in names)

    def _shape(self, name: str, rank: int) -> torch.Size:
        shape, rows = self._all[name].shape, self._rows(name, rank)
        return shape if rows == slice(None) else torch.Size((rows.stop - rows.start, *shape[1:]))

    def _split(self, names: list[str], flat: Tensor, rank: int) -> dict[str, Tensor]:
        """What `rank` holds of each of the parameters, out of one row of numbers."""
        shapes = [self._shape(name, rank) for name in names]
        pieces = flat.split([shape.numel() for shape in shapes])
        return {n: piece.view(shape) for n, piece, shape in zip(names, pieces, shapes, strict=True)}

    def _exchanged(self, to: list[list[Tensor]], sizes: list[int]) -> Sequence[Tensor]:
        """What each rank sent here, of these sizes, for what goes `to` each rank."""
        if self._board:
            return self._board.exchanged(to, sizes)
        device = next(self.model.parameters()).device
        sent = torch.cat([piece for pieces in to for piece in pieces] or [torch.empty(0, device=device)])
        got = torch.empty(sum(sizes), device=device)
        dist.all_to_all_single(got, sent, sizes, [sum(piece.numel() for piece in pieces) for pieces in to])
        return got.split(sizes)

    # How the optimizers' states are called where they are saved: by the place of their parameter among all ranks'

    def named_states(self, states: dict[str, Tensor]) -> dict[str, Tensor]:
        """States called group/number/key by the numbers of the whole group, for those of what is owned."""
        return {self._renumbered(flat, self._places()): tensor for flat, tensor in states.items()}

    def own_states(self, states: Mapping[str, Tensor], rested: bool = False) -> dict[str, Tensor]:
        """What `named_states` gave on all ranks: only those of what is owned, by the numbers here.

        `rested`: there may be groups that never took a step, since the run had settled when it began.
        Raises:  ValueError if they were saved for groups of parameters that are not here.
        """
        saved, here = {flat.split("/")[0] for flat in states}, {g for g, names in self._groups.items() if names}
        if saved and saved != here and not (rested and saved < here):
            raise ValueError(
                f"saved with optimizers for {sorted(saved)}, but here they are for {sorted(here)}: go on with the"
                " version that saved it, or train on in another folder with --set start=RUN"
            )
        back = {group: {n: k for k, n in places.items()} for group, places in self._places().items()}
        return {
            self._renumbered(flat, back): states[flat]
            for flat in states
            if int(flat.split("/")[1]) in back[flat.split("/")[0]] or self.ranks.count == 1
        }

    def _places(self) -> dict[str, dict[int, int]]:
        own = {
            group: [n for n, name in enumerate(names) if name in self._mine] for group, names in self._groups.items()
        }
        return {group: dict(enumerate(numbers)) for group, numbers in own.items()}

    @staticmethod
    def _renumbered(flat: str, places: dict[str, dict[int, int]]) -> str:
        group, number, key = flat.split("/")
        return f"{group}/{places[group].get(int(number), int(number))}/{key}"


def _dealt(parameters: dict[str, nn.Parameter], groups: dict[str, list[str]], count: int) -> dict[str, int]:
    """The owner of each parameter: of every group, and of all, each rank has about as much."""
    rest = [name for name in parameters if not any(name in names for names in groups.values())]
    load, owner = [0] * count, {}
    for names in (*groups.values(), rest):
        of_group = [0] * count
        for name in sorted(names, key=lambda name: -parameters[name].numel()):
            rank = min(range(count), key=lambda rank: (of_group[rank], load[rank]))
            owner[name] = rank
            of_group[rank] += parameters[name].numel()
            load[rank] += parameters[name].numel()
    return owner
