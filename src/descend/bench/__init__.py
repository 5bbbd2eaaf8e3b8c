"""Measuring descend beside torch.optim, published packages and what memory allows.

    from descend.bench import WORKLOADS, cases, measure_parts, step_parts, targets

    parts = step_parts([cases()["adamw"]], list(WORKLOADS.values()), rounds=21)
    for target in targets(measure_parts(parts, rounds=21)):
        print(target.name, target.measured, target.status)

The command `descend bench` does this and prints it. `measurement` is the frame of every run;
`suite` and `changing` are measured in it: `contenders` on `workloads`, and where there are
`changes`, by `timing`. Beside them stand `limit`, `startup` and `peak_memory`; `targets` are
promised.
"""

from descend.bench.changes import CHANGES as CHANGES
from descend.bench.changes import Change as Change
from descend.bench.changing import ChangeTimes as ChangeTimes
from descend.bench.changing import changing_parts as changing_parts
from descend.bench.changing import measure_change as measure_change
from descend.bench.contenders import ASKED_FOR as ASKED_FOR
from descend.bench.contenders import SHORT as SHORT
from descend.bench.contenders import UNMEASURED as UNMEASURED
from descend.bench.contenders import Case as Case
from descend.bench.contenders import cases as cases
from descend.bench.contenders import contenders as contenders
from descend.bench.contenders import find_case as find_case
from descend.bench.measurement import AT_MOST as AT_MOST
from descend.bench.measurement import Machine as Machine
from descend.bench.measurement import Measurement as Measurement
from descend.bench.measurement import Part as Part
from descend.bench.measurement import Target as Target
from descend.bench.measurement import document as document
from descend.bench.measurement import machine as machine
from descend.bench.measurement import measure_parts as measure_parts
from descend.bench.measurement import slowest as slowest
from descend.bench.peak_memory import StepMemory as StepMemory
from descend.bench.startup import StartUp as StartUp
from descend.bench.suite import CaseTimes as CaseTimes
from descend.bench.suite import StepTimes as StepTimes
from descend.bench.suite import Timing as Timing
from descend.bench.suite import measure_steps as measure_steps
from descend.bench.suite import step_parts as step_parts
from descend.bench.targets import SIZES as SIZES
from descend.bench.targets import changing_targets as changing_targets
from descend.bench.targets import targets as targets
from descend.bench.timing import Spread as Spread
from descend.bench.timing import paired_ratio as paired_ratio
from descend.bench.timing import spread as spread
from descend.bench.workloads import WORKLOADS as WORKLOADS
from descend.bench.workloads import Workload as Workload
from descend.bench.workloads import parameters as parameters
