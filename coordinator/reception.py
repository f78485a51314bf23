"""Answers what stations ask, one question at a time, and passes on what they bring.

- A trial is acknowledged once it is on the disk, and only then does the campaign hear of it.
- Work is noted as handed out before it is handed out.
- Where the disk does not take a trial the question is left without an answer, so that its station keeps the trial.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import msgpack

from coordinator import recordings
from coordinator.campaign import Campaign
from coordinator.errors import CoordinatorError
from coordinator.ingest import SHA256, BatchRefused, read_batch
from coordinator.leases import AWAY_S, MOST_WANTED, Leases, RequestRefused, read_request
from coordinator.network import Message, Presence, Question, StatusSaid
from coordinator.recordings import RecordingNotKept, RecordingRefused
from coordinator.roster import Roster
from coordinator.store import Asked, Store
from edge.records import encode

LOG = logging.getLogger("coordinator.reception")
