"""Algorithms. An import line here is the registry line."""

from flowpolicies.algorithms.base import ALGORITHMS as ALGORITHMS
from flowpolicies.algorithms.base import OfflineAlgorithm as OfflineAlgorithm
from flowpolicies.algorithms.base import get_algorithm as get_algorithm
from flowpolicies.algorithms.bc import BC as BC
from flowpolicies.algorithms.bc import BCConfig as BCConfig
from flowpolicies.algorithms.cgql import CGQL as CGQL
from flowpolicies.algorithms.cgql import CGQLL as CGQLL
from flowpolicies.algorithms.cgql import CGQLM as CGQLM
from flowpolicies.algorithms.cgql import CGQLConfig as CGQLConfig
from flowpolicies.algorithms.cgql import CGQLLConfig as CGQLLConfig
from flowpolicies.algorithms.cgql import CGQLMConfig as CGQLMConfig
from flowpolicies.algorithms.dsrl import DSRL as DSRL
from flowpolicies.algorithms.dsrl import DSRLConfig as DSRLConfig
from flowpolicies.algorithms.fql import FQL as FQL
from flowpolicies.algorithms.fql import FQLConfig as FQLConfig
from flowpolicies.algorithms.ifql import IFQL as IFQL
from flowpolicies.algorithms.ifql import IFQLConfig as IFQLConfig
from flowpolicies.algorithms.qflow import QFlow as QFlow
from flowpolicies.algorithms.qflow import QFlowConfig as QFlowConfig
from flowpolicies.algorithms.qfql import QFQL as QFQL
from flowpolicies.algorithms.qfql import QFQLConfig as QFQLConfig
