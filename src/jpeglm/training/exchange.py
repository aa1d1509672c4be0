"""Work on whole matrices whose rows are split over processes: gather, work, scatter.

Muon orthogonalises matrices, which no process holds whole under FSDP. Here each process is given
every n-th of them in one exchange, the largest first, does its part of the work, and gives the rows
back in a second one. So the work is shared, a process holds about as much as its share of the
weights besides, and nothing is computed otherwise than by one process alone. Trade-off: two
exchanges a step, which wait for the slowest process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

__all__ = ["rows_of", "whole_matrices"]

Work = Callable[[list[torch.Tensor]], list[torch.Tensor]]
"""Matrices to matrices of the same shapes."""


def rows_of(rows: int, processes: int, process: int) -> int:
    """How many of so many rows a process holds, as `DTensor`'s Shard(0) has it: as torch.chunk."""
    each = -(-rows // processes)
    return max(0, min(each, rows - each * process))


def whole_matrices(
    like: Sequence[DTensor], parts: Sequence[torch.Tensor], work: Work
) -> list[torch.Tensor]:
    """This process's rows of `work` done on whole matrices; every process takes part.

    like: parameters, split by rows over the last dimension of one mesh; parts: [rows here, columns]
    for each, of one type, what stands in the place of the parameter's rows.
    """
    group = like[0].device_mesh.get_group(like[0].device_mesh.ndim - 1)
    count, me = dist.get_world_size(group), dist.get_rank(group)
    order = sorted(range(len(like)), key=lambda number: -like[number].numel())
    owned = [order[process::count] for process in range(count)]
    shapes = [tuple(one.shape) for one in like]

    def cut(numbers: list[int], process: int) -> list[int]:
        """Values of the rows that a process holds of each of these matrices."""
        return [rows_of(shapes[n][0], count, process) * shapes[n][1] for n in numbers]

    out = [sum(cut(numbers, me)) for numbers in owned]
    back = [sum(cut(owned[me], process)) for process in range(count)]
    sent = torch.cat([parts[number].reshape(-1) for numbers in owned for number in numbers])
    found = sent.new_empty(sum(back))
    dist.all_to_all_single(found, sent, back, out, group=group)
    # From each process come its rows of one matrix after the other.
    pieces = [
        list(rows.split(cut(owned[me], process))) for process, rows in enumerate(found.split(back))
    ]
    matrices = [
        torch.cat([rows[place] for rows in pieces]).view(shapes[number])
        for place, number in enumerate(owned[me])
    ]
    done = [
        matrix.reshape(-1).split([sum(cut([number], process)) for process in range(count)])
        for number, matrix in zip(owned[me], work(matrices) if matrices else [])
    ]
    sent = torch.cat([found[:0], *(rows[process] for process in range(count) for rows in done)])
    found = sent.new_empty(sum(out))
    dist.all_to_all_single(found, sent, out, back, group=group)
    result: list[torch.Tensor] = [found] * len(parts)
    for numbers, rows in zip(owned, found.split(out)):
        for number, own in zip(numbers, rows.split(cut(numbers, me))):
            result[number] = own.view(parts[number].shape)
    return result
