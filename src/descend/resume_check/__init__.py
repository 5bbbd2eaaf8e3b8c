"""Whether a script's resume is exact: run it whole, run it with kills, compare every bit.

`check` is the whole of it. The script is a process (`script_process`), whose run's folder is looked
at while it trains (`run_watch`), to kill it at instants in all parts of the run (`kill_instants`).
What it leaves is laid beside what the whole run has left (`run_comparison`).
"""

from descend.resume_check.check import Kill as Kill
from descend.resume_check.check import ResumeCheck as ResumeCheck
from descend.resume_check.check import check_resume as check_resume
from descend.resume_check.run_comparison import Comparison as Comparison
from descend.resume_check.run_comparison import LogDifference as LogDifference
from descend.resume_check.script_process import Script as Script
from descend.resume_check.script_process import ScriptError as ScriptError
