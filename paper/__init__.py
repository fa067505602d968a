"""The paper's tables and figures: every loss on every data set with every seed.

    python -m paper run paper/paper.toml --out runs/study
    python -m paper cost paper/paper.toml --out runs/study
    python -m paper draw paper/paper.toml --runs runs/study
    python -m paper outlines paper/towns.toml --runs runs/study
    python -m paper edges

The first trains, a process a run, and goes on where it was stopped; `--only synthetic
--only boundary --seed 0` does a part of it, `--shard 2/8` one of eight equal parts; on
one machine, give the command once for each core. What is kept of a study, in
`docs/results/STUDY/runs.json`, is not trained again; `--kept none` does. The second, on
a machine with nothing else to do, measures the seconds a step of each loss. The third
makes Tables 1 and 2, curves, gains and windows side by side out of what is finished,
the fourth a table of what becomes of outlines that are split and get right angles
(`outlines`). The last shows in minutes, without any network, what each loss makes of an
edge that nobody can know (`uncertain_edges`).

A study file (`plan`) names data sets, losses and ablations. A data set is an experiment
as `train.py` takes it, a loss the `--set` assignments that make it. `trainer` trains,
`results` reads what is finished, `summary` draws it.
"""
