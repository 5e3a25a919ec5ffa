"""Updates of FQL, Q-Flow, IFQL, RQL and QAM in JAX, to compare the speed of ours with.

OUR OWN TRANSCRIPTION: written from the equations of the papers and from this repository's description of the
algorithms (docs/algorithms), in the form that the authors' public implementations have: one jitted function that draws
its noise, differentiates the sum of all losses once, and moves all weights by one Adam. It is not the authors' code,
and no line of theirs is copied. tests/benchmarking/test_peers.py checks that losses, and weights after an update, equal
ours and the recordings of the authors' code.

What an update includes, because the authors' updates do: the draws, logged means of the losses, the largest, the
smallest and the norm of the gradient, Adam over the weights and also over the slow copies (whose gradient is 0), and
the Polyak step of the slow copies. `lean=True` leaves out the statistics of the gradient and the slow copies' Adam.
"""

from peers.fql import FQL
from peers.ifql import IFQL
from peers.qam import QAM
from peers.qflow import QFlow
from peers.rql import RQL
from peers.update import Peer as Peer
from peers.update import PeerState as PeerState
from peers.update import first_state as first_state
from peers.update import make_optimizer as make_optimizer
from peers.update import make_update as make_update
from peers.update import update_with as update_with
from peers.update import wait_for as wait_for

PEERS: dict[str, Peer] = {peer.name: peer for peer in (FQL, IFQL, QFlow, RQL, QAM)}
"""Name of an algorithm -> its update in JAX."""
