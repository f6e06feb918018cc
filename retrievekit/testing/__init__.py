"""Laws that others can run, and what their tests can stand on.

`check_stage`, `check_run` and `check_encoder` hold an implementation to its protocol, `asserting`
wraps a stage; `index_cases` gives every registered index kind, for suites that run over all of
them; `FaultFS` is an operating system that fails on demand; `toy_corpus` and `ToyEncoder` need
nothing else. The campaigns `kill_campaign`, `mutation_campaign`, `power_campaign`,
`full_disk_campaign` and `reading_campaign` try to lose or falsify what an index kind was given.
`JudgingModel` is a language model without weights, and `attack_success` lets passages talk to one.

The checks need no test framework. They raise `AssertionError`, and the message begins with the law
that was broken.
"""

from __future__ import annotations

from retrievekit.store.faults import FaultFS as FaultFS
from retrievekit.store.faults import SimulatedCrash as SimulatedCrash
from retrievekit.testing.attacks import ATTACKS as ATTACKS
from retrievekit.testing.attacks import attack_success as attack_success
from retrievekit.testing.encoders import check_encoder as check_encoder
from retrievekit.testing.indexes import IndexCase as IndexCase
from retrievekit.testing.indexes import check_index as check_index
from retrievekit.testing.indexes import index_cases as index_cases
from retrievekit.testing.judging import JudgingModel as JudgingModel
from retrievekit.testing.kills import kill_campaign as kill_campaign
from retrievekit.testing.kills import killed_update_campaign as killed_update_campaign
from retrievekit.testing.mutations import mutation_campaign as mutation_campaign
from retrievekit.testing.power import full_disk_campaign as full_disk_campaign
from retrievekit.testing.power import power_campaign as power_campaign
from retrievekit.testing.readers import reading_campaign as reading_campaign
from retrievekit.testing.stages import Asserting as Asserting
from retrievekit.testing.stages import asserting as asserting
from retrievekit.testing.stages import check_run as check_run
from retrievekit.testing.stages import check_stage as check_stage
from retrievekit.testing.toys import Toy as Toy
from retrievekit.testing.toys import ToyEncoder as ToyEncoder
from retrievekit.testing.toys import toy_corpus as toy_corpus
