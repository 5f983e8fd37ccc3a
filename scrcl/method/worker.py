"""What the processes of a torchrun do, other than the first: hold a share of the cells while networks are trained."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from scrcl import processes
from scrcl.messages import UserError, log
from scrcl.method import training
from scrcl.method.inputs import GraphInputs, HostInputs, on_device
from scrcl.method.kernels import compiled
from scrcl.method.losses import Objective
from scrcl.method.network import Architecture
from scrcl.method.shares import Part
from scrcl.method.training import Schedule
from scrcl.runtime import find_device, limited_threads, tf32_products


class Job(NamedTuple):
    """What a process needs to take its part in the training.

    Attributes
    ----------
    host
        The inputs of its cells.
    starts
        The first cell of each process, and the number of all cells.
    architecture, objective, schedule
        As for `training.fit`.
    seeds
        Which seeds are trained.
    """

    host: HostInputs
    starts: list[int]
    architecture: Architecture
    objective: Objective
    schedule: Schedule
    seeds: list[int]


def shared_inputs(
    host: HostInputs,
    device: torch.device,
    architecture: Architecture,
    objective: Objective,
    schedule: Schedule,
    seeds: list[int],
) -> GraphInputs:
    """Give every other process its cells and its job, and return the inputs of those that stay here.

    Parameters
    ----------
    host
        The inputs of all cells.
    device
        Where this process trains.
    architecture, objective, schedule, seeds
        As in `Job`.

    Raises
    ------
    UserError
        When there are fewer cells than processes.
    """
    n_cells, n_processes = host.normalised.shape[0], processes.number()
    if n_processes == 1:
        return on_device(host, device)
    if n_cells < n_processes:
        raise UserError(f"{n_processes} processes cannot share {n_cells} cells; start fewer processes.")
    starts = np.linspace(0, n_cells, n_processes + 1).astype(int).tolist()
    jobs = Job(host, starts, architecture, objective, schedule, seeds)
    own = processes.hand_out(lambda rank: jobs._replace(host=host.of(slice(starts[rank], starts[rank + 1]))))
    inputs = on_device(own.host, device, share=Part(0, starts))
    log.info("Training in %d processes.", n_processes)
    return inputs


def work(device_name: str, threads: int, tf32: bool, compiles: bool) -> None:
    """Take part in what the first process does, in the same order as `analysis.train_and_cluster`.

    Parameters
    ----------
    device_name, threads, tf32, compiles
        As in the settings.
    """
    device = find_device(device_name)
    with limited_threads(threads), tf32_products(device, tf32), compiled(device, compiles):
        job: Job | None = processes.receive()
        if job is None:  # the first process had nothing to train
            return
        share = Part(processes.rank(), job.starts)
        inputs = on_device(job.host, device, share=share)
        for seed in job.seeds:
            model = training.fit(inputs, job.architecture, job.objective, job.schedule, seed=seed).model
            training.embed(model, inputs)
            training.whole_parameters(model, share)
        training.embed(training.restored_model(None, inputs, job.architecture), inputs)
