"""Measuring descend beside torch.optim and beside what memory allows.

    from descend.bench import WORKLOADS, cases, run, targets

    found = run([cases()["adamw"]], list(WORKLOADS.values()), rounds=21)
    for target in targets(found):
        print(target.name, target.measured, target.status)

The command `descend bench` does this and prints it.
"""

from descend.bench.changes import CHANGES as CHANGES
from descend.bench.changes import USUAL as USUAL
from descend.bench.changes import Change as Change
from descend.bench.changing import ChangeTimes as ChangeTimes
from descend.bench.changing import ChangingMeasurement as ChangingMeasurement
from descend.bench.changing import changing_parts as changing_parts
from descend.bench.changing import changing_targets as changing_targets
from descend.bench.changing import measure_change as measure_change
from descend.bench.changing import run_changing as run_changing
from descend.bench.contenders import SHORT as SHORT
from descend.bench.contenders import UNMEASURED as UNMEASURED
from descend.bench.contenders import Case as Case
from descend.bench.contenders import Contender as Contender
from descend.bench.contenders import cases as cases
from descend.bench.contenders import contenders as contenders
from descend.bench.contenders import find_case as find_case
from descend.bench.document import changing_document as changing_document
from descend.bench.document import document as document
from descend.bench.peak_memory import StepMemory as StepMemory
from descend.bench.peak_memory import step_memory as step_memory
from descend.bench.startup import StartUp as StartUp
from descend.bench.startup import start_up as start_up
from descend.bench.suite import Machine as Machine
from descend.bench.suite import Measurement as Measurement
from descend.bench.suite import StepTimes as StepTimes
from descend.bench.suite import Timing as Timing
from descend.bench.suite import machine as machine
from descend.bench.suite import measure_steps as measure_steps
from descend.bench.suite import parts as parts
from descend.bench.suite import run as run
from descend.bench.targets import Target as Target
from descend.bench.targets import targets as targets
from descend.bench.timing import Spread as Spread
from descend.bench.timing import paired_ratio as paired_ratio
from descend.bench.timing import spread as spread
from descend.bench.workloads import WORKLOADS as WORKLOADS
from descend.bench.workloads import Workload as Workload
from descend.bench.workloads import parameters as parameters
