"""Control groups: limits on memory and processes, and figures of the whole process tree.

One interface for unified v2, v1, and mixtures of both:

    parent = Parent.find(host)            # once
    with parent.create() as groups:       # one for each sandbox
        groups.prepare(limits)            # before each run
        …                                 # the program's child joins by groups.placement
        groups.usage()                    # after it

place, v1, v2, layout   find out where groups can be made
cpu, pids, memory       the files of what is limited or measured in every run, in both versions
knob                    what a run may ask for besides: share, cpus, blockio, devices, pressure
member, groups, parent  put these together
nest                    make room for groups below our own, where one asks for it
owner, removal          names that tell whose a group is; ending a group
files                   the file descriptors below it all
"""

from __future__ import annotations

from runner.cgroup.cpu import CpuFormat
from runner.cgroup.groups import Groups, GroupUsage
from runner.cgroup.nest import nest
from runner.cgroup.parent import Parent, refuse_without_groups
from runner.cgroup.place import Resource, WhyNot

__all__ = [
    "CpuFormat",
    "GroupUsage",
    "Groups",
    "Parent",
    "Resource",
    "WhyNot",
    "nest",
    "refuse_without_groups",
]
