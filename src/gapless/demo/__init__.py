"""The demonstration: every kind of client hears each of five events, each from another door, once."""

from gapless.demo.board import Board, Fault
from gapless.demo.run import Demo
from gapless.demo.scenario import CLIENTS, ROOMS, Step, scenario

__all__ = ["CLIENTS", "ROOMS", "Board", "Demo", "Fault", "Step", "scenario"]
