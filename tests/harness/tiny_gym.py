"""Small Gymnasium environments for the tests: a puck on a table, and a switch."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np


class Puck(gymnasium.Env[dict[str, Any], np.ndarray]):
    """A tool that goes where it is sent, halfway a step; done once it stands within 5 of (50, 50)."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 - as Gymnasium has it

    def __init__(self, fault: str = "", render_mode: str | None = None) -> None:
        self.observation_space = gymnasium.spaces.Dict({"tool": gymnasium.spaces.Box(0, 100, (2,))})
        self.action_space = gymnasium.spaces.Box(0.0, 100.0, (2,), np.float32)
        self._fault = fault
        self._at = np.zeros(2)
        self.luck = 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], Any]:
        super().reset(seed=seed)
        self._at = np.array((options or {}).get("place", [10.0, 10.0]), dtype=float)
        self.luck = float(self.np_random.uniform())
        if self._fault == "reset" and options:
            raise RuntimeError("the table is gone")
        return self._seen(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        if self._fault == "step":
            raise RuntimeError("the puck\nis gone")
        self._at = self._at + (action - self._at) / 2
        away = float(np.hypot(*(self._at - 50.0)))
        info = {"solved": away < 5.0, "closeness": 1.0 - away / 100.0, "word": "ignored", "nothing": float("nan")}
        return self._seen(), 0.0, away < 5.0, False, info

    def render(self) -> Any:
        return np.zeros((20, 20, 3), dtype=np.uint8)

    def _seen(self) -> dict[str, Any]:
        if self._fault == "nan":
            return {"tool": np.array([np.nan, 0.0])}
        return {"tool": self._at.copy()}


class Switch(gymnasium.Env[np.ndarray, int]):
    """0 moves left, 1 moves right; done at 3."""

    def __init__(self, render_mode: str | None = None) -> None:
        self.observation_space = gymnasium.spaces.Box(-10, 10, (1,))
        self.action_space = gymnasium.spaces.Discrete(2)
        self._at = 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, Any]:
        super().reset(seed=seed)
        self._at = float(self.np_random.integers(-2, 2))
        return np.array([self._at]), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._at += 2 * int(action) - 1
        return np.array([self._at]), 0.0, False, abs(self._at) > 6, {"at": self._at}


gymnasium.register("enpire/Puck-v0", Puck)
gymnasium.register("enpire/Switch-v0", Switch)
