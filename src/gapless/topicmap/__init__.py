"""The declared table between MQTT topics, event types and rooms."""

from gapless.topicmap.crm import crm_map
from gapless.topicmap.load import load_map
from gapless.topicmap.map import Route, TopicMap
from gapless.topicmap.row import Alias, EphemeralIf, Row
from gapless.topicmap.rules import RoomRule

__all__ = ["Alias", "EphemeralIf", "RoomRule", "Route", "Row", "TopicMap", "crm_map", "load_map"]
