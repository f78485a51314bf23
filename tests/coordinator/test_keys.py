"""Keys stay private, rings hold what they say, and people replace and drop keys by typing one command."""

from __future__ import annotations

import json
import os
import re
import stat
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from securesystemslib.signer import SIGNER_FOR_URI_SCHEME, CryptoSigner, Key, SecretsHandler, Signature, Signer
from typer.testing import CliRunner

from coordinator.cli import app
from coordinator.keys_cli import _size, _span
from coordinator.publish import publisher
from coordinator.publish.ceremony import Ceremony
from coordinator.publish.keys import KeyRefused, Keyring, make, read_file, read_ring, signer_of
from coordinator.publish.repository import RepositoryRefused
from edge.trust.client import Tampered
from tests.harness.lab import TASK, Lab, sha256

ARCHIVE = b"a bundle"
SECRET = "correct horse"


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path, float(int(time.time())))


def run(*words: object, env: dict[str, str] | None = None, typed: str | None = None) -> tuple[int, str, str]:
    """Return exit code, standard output and standard error of a command."""
    result = CliRunner().invoke(app, ["keys", *map(str, words)], env=env, input=typed)
    return result.exit_code, result.stdout, result.stderr


def signers(lab: Lab, *numbers: int) -> list[str]:
    return [word for number in numbers for word in ("--signer", str(lab.folder / "keys" / f"human-{number}.pem"))]


# --- files ------------------------------------------------------------------------------------------------------------


def test_private_keys_are_their_owner_s_alone(tmp_path: Path) -> None:
    make(tmp_path / "keys", humans=2, threshold=2)
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    private = sorted(path.name for path in (tmp_path / "keys").glob("*.pem") if ".pub" not in path.name)
    assert private == ["human-1.pem", "human-2.pem", "online.pem"]
    for name in private:
        assert stat.S_IMODE((tmp_path / "keys" / name).stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o610])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    Keyring.for_demo(tmp_path)
    (tmp_path / "online.pem").chmod(mode)
    with pytest.raises(KeyRefused, match="others can read"):
        Keyring.open(tmp_path)


def test_a_demo_s_ring_is_made_once(tmp_path: Path) -> None:
    first, again = (Keyring.for_demo(tmp_path / "keys") for _ in range(2))
    assert first.online.public_key == again.online.public_key
    assert [signer.public_key.keyid for signer in first.humans] == [key.keyid for key in again.people.values()]
    assert (len(first.humans), first.threshold) == (1, 1)


def test_keys_are_never_written_over(tmp_path: Path) -> None:
    make(tmp_path)
    before = (tmp_path / "online.pem").read_bytes()
    with pytest.raises(KeyRefused, match="holds keys already"):
        make(tmp_path)
    (tmp_path / "ring.json").unlink()
    with pytest.raises(KeyRefused, match="move it away"):
        make(tmp_path)
    assert (tmp_path / "online.pem").read_bytes() == before


@pytest.mark.parametrize(("humans", "threshold"), [(1, 2), (0, 1), (2, 0), (2, 3)])
def test_a_threshold_that_nobody_can_reach_is_refused(tmp_path: Path, humans: int, threshold: int) -> None:
    with pytest.raises(KeyRefused, match="threshold"):
        make(tmp_path, humans, threshold)
    assert list(tmp_path.iterdir()) == []


def test_a_passphrase_is_asked_for_and_must_be_right(tmp_path: Path) -> None:
    make(tmp_path, passphrase=SECRET)
    assert b"ENCRYPTED" in (tmp_path / "human-1.pem").read_bytes()
    asked: list[str] = []

    def ask(name: str) -> str:
        asked.append(name)
        return SECRET

    assert len(Keyring.open(tmp_path, ask, humans=True).humans) == 2
    assert asked == ["human-1.pem", "human-2.pem"]  # the coordinator starts again without anybody
    with pytest.raises(KeyRefused, match="has a passphrase"):
        read_file(tmp_path / "human-1.pem")
    with pytest.raises(KeyRefused, match="not the passphrase"):
        read_file(tmp_path / "human-1.pem", lambda name: "wrong")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not a private key"),
        (b"not a key", "not a private key"),
        (
            ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            "not an Ed25519 key",
        ),
    ],
)
def test_a_file_that_is_no_key_is_refused(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(KeyRefused, match=says):
        read_file(path)
    with pytest.raises(KeyRefused, match="cannot read"):
        read_file(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"threshold": 1, "humans": {"a": {}}}', '{"threshold": 1, "humans": []}']
)
def test_a_ring_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "ring.json").write_text(text)
    with pytest.raises(KeyRefused, match="not a list of keys"):
        read_ring(tmp_path)


def test_a_signer_is_one_of_those_that_sign_here(lab: Lab, tmp_path: Path) -> None:
    people = list(lab.ring.people.values())
    path = lab.folder / "keys" / "human-1.pem"
    for what in (str(path), f"file2:{path}"):
        assert signer_of(what, people).public_key.keyid == people[0].keyid
    with pytest.raises(KeyRefused, match="signs nothing here"):
        signer_of(str(lab.folder / "keys" / "online.pem"), people)
    with pytest.raises(KeyRefused, match="cannot read"):
        signer_of("nowhere.pem", people)


class Token(Signer):
    """A key in hardware, which signs after its PIN and never shows its private half."""

    inside = CryptoSigner.generate_ed25519()

    def __init__(self, public_key: Key) -> None:
        self._public_key = public_key

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None
    ) -> Token:
        if secrets_handler is None or secrets_handler("PIN") != SECRET:
            raise ValueError("wrong PIN")
        return cls(public_key)

    @property
    def public_key(self) -> Key:
        return self._public_key

    def sign(self, payload: bytes) -> Signature:
        return Signature(self._public_key.keyid, self.inside.sign(payload).signature)


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Register a kind of hardware; return the file of its public key."""
    monkeypatch.setitem(SIGNER_FOR_URI_SCHEME, "token", Token)
    path = tmp_path / "ann.pub.pem"
    public = Token.inside._private_key.public_key()  # type: ignore[union-attr]
    path.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


def test_a_key_in_hardware_signs_by_its_uri(lab: Lab, token: Path) -> None:
    people = [*lab.ring.people.values(), Token.inside.public_key]
    assert signer_of("token:1", people, lambda name: SECRET).public_key == Token.inside.public_key
    with pytest.raises(KeyRefused, match="wrong PIN"):
        signer_of("token:1", people, lambda name: "0000")
    with pytest.raises(KeyRefused, match="none of the keys"):
        signer_of("token:1", people[:2], lambda name: SECRET)
    with pytest.raises(KeyRefused, match="none of the keys that sign here"):
        signer_of("hsm:2", people)


# --- commands --------------------------------------------------------------------------------------------------------


def test_make_and_show(tmp_path: Path) -> None:
    code, out, err = run("make", tmp_path / "keys", "--humans", 3, "--threshold", 2)
    assert (code, len(out.splitlines())) == (0, 4)
    assert "keep no copy" in err
    code, out, _ = run("show", tmp_path / "keys", "--json")
    told = json.loads(out)
    assert (code, list(told["people"])) == (0, ["human-1", "human-2", "human-3"])
    assert run("make", tmp_path / "keys")[0] == 2
    code, _, err = run("show", tmp_path / "nowhere")
    assert (code, "there is no repository" in err) == (2, True)


def test_make_with_a_passphrase_and_hardware(tmp_path: Path, token: Path) -> None:
    words = ("make", tmp_path / "keys", "--humans", 1, "--passphrase", "--hardware", token)
    assert run(*words, typed=f"{SECRET}\nanother\n")[0] != 0  # the two do not agree, and nothing more is typed
    assert not (tmp_path / "keys").exists()
    assert run(*words, env={"ENPIRE_KEY_PASSPHRASE": SECRET})[0] == 0
    assert list(read_ring(tmp_path / "keys")[1]) == ["human-1", "ann"]
    with pytest.raises(KeyRefused, match="passphrase"):
        read_file(tmp_path / "keys" / "human-1.pem")


def test_show_says_who_signs_what_and_what_waits(lab: Lab) -> None:
    lab.repository.release(TASK, ARCHIVE, lab.ring.humans[:1])
    code, out, _ = run("show", lab.folder / "run", "--keys", lab.folder / "keys", "--json")
    told = json.loads(out)
    roles = {role["role"]: role for role in told["roles"]}
    assert code == 0
    assert roles["root"]["keys"] == roles["released"]["keys"] == ["human-1", "human-2", "human-3"]
    assert roles["candidates"]["keys"] == roles["timestamp"]["keys"] == ["online"]
    thresholds = {name: role["threshold"] for name, role in roles.items()}
    assert (thresholds["root"], thresholds["released"], thresholds["revoked"], thresholds["overrides"]) == (2, 2, 1, 2)
    assert list(told["waiting"]) == ["released"]
    code, out, _ = run("show", lab.folder / "run", "--keys", lab.folder / "keys")
    assert "released waits" in out
    assert sha256(ARCHIVE) in out


def test_a_rotated_online_key_is_believed_and_the_old_one_no_more(lab: Lab) -> None:
    lab.repository.offer_candidate(TASK, ARCHIVE, lab.ring)
    lab.trust().refresh()
    words = ("rotate", lab.folder / "run", "--keys", lab.folder / "keys", *signers(lab, 1, 2))
    before = lab.files()
    code, out, _ = run(*words, "--dry-run")
    assert (code, "root would be version 2" in out) == (0, True)
    assert lab.files() == before
    assert not list((lab.folder / "keys").glob("*.new"))
    assert run(*words)[0] == 0
    assert lab.trust().grant(TASK, sha256(ARCHIVE)).role == "candidates"
    old, new = lab.ring, Keyring.open(lab.folder / "keys")
    assert new.online.public_key != old.online.public_key
    lab.repository.offer_candidate(TASK, b"with the new key", new)
    lab.trust().refresh()
    with pytest.raises(Exception, match="more signatures are needed"):
        lab.repository.offer_candidate(TASK, b"with the old key", old)


def test_a_rotation_needs_enough_people(lab: Lab) -> None:
    before = lab.files()
    for few in ((), (1,)):
        code, _, err = run("rotate", lab.folder / "run", "--keys", lab.folder / "keys", *signers(lab, *few))
        assert (code, f"{2 - len(few)} more signatures" in err) == (2, True)
    assert lab.files() == before
    assert Keyring.open(lab.folder / "keys").online.public_key == lab.ring.online.public_key


def test_a_person_s_key_is_replaced_by_a_file_or_by_hardware(lab: Lab, token: Path) -> None:
    keys = lab.folder / "keys"
    words = ("rotate", lab.folder / "run", "--keys", keys, "--role", "human-1", *signers(lab, 2, 3))
    old = read_file(keys / "human-1.pem")
    assert run(*words)[0] == 0
    assert read_file(keys / "human-1.pem").public_key != old.public_key
    lab.repository.release(TASK, ARCHIVE, Keyring.open(keys, humans=True).humans[:2], Keyring.open(keys))
    assert lab.trust().grant(TASK, sha256(ARCHIVE)).role == "released"
    assert run(*words, "--public", token)[0] == 0
    told = lab.repository.release(
        TASK, b"by hardware", [signer_of("token:1", lab.repository.books().people(), lambda name: SECRET)]
    )
    assert told.missing == 1
    assert run(*words[:5], "nobody", *words[6:])[2] == (
        "enpire-coord: no person's key is named 'nobody'; these are: human-1, human-2, human-3\n"
    )


def test_a_revoked_key_is_out_of_every_role(lab: Lab) -> None:
    lab.repository.release(TASK, ARCHIVE, lab.ring.humans, lab.ring)
    lab.trust().refresh()
    gone = lab.ring.people["human-3"].keyid
    words = ("revoke", lab.folder / "run", gone[:10], "--keys", lab.folder / "keys", *signers(lab, 1, 2))
    assert run(*words, "--dry-run")[0] == 0
    assert gone in {key.keyid for key in lab.repository.books().people()}
    assert run(*words)[0] == 0
    books = lab.repository.books()
    for name in books.names():
        assert gone not in [key.keyid for key in books.keys(name)]
        assert books.missing(name, books.role(name)) == 0
        assert gone not in books.role(name).signatures or name == "root"
    assert lab.trust().grant(TASK, sha256(ARCHIVE)).role == "released"
    assert "human-3" not in read_ring(lab.folder / "keys")[1]
    code, _, err = run(*words)
    assert (code, "0 keys begin with" in err) == (2, True)
    code, _, err = run("revoke", lab.folder / "run", lab.ring.people["human-2"].keyid, *words[3:])
    assert (code, "replace it instead" in err) == (2, True)


def test_renew_signs_what_people_sign_anew(lab: Lab) -> None:
    words = ("renew", lab.folder / "run", "--keys", lab.folder / "keys", *signers(lab, 1, 2))
    assert run(*words)[1] == "nothing is to be signed anew\n"
    assert "root is version 2 instead of 1" in run(*words, "--all")[1]
    lab.now_unix_s += 4 * 86400.0
    ceremony = Ceremony(lab.repository, lab.ring, lab.ring.humans[:1])
    assert ceremony.renew(everything=False) == {"revoked": (2, 3)}
    lab.trust().refresh()
    with pytest.raises(RepositoryRefused, match="more signatures"):
        ceremony.renew(everything=True)


def test_a_stolen_key_file_of_another_lab_signs_nothing(lab: Lab, tmp_path: Path) -> None:
    other = Lab(tmp_path / "other", lab.now_unix_s)
    code, _, err = run("rotate", lab.folder / "run", "--keys", lab.folder / "keys", *signers(other, 1, 2))
    assert (code, "signs nothing here" in err) == (2, True)
    with pytest.raises(Tampered):
        lab.trust(other.served()).refresh()


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        (tmp_path / "file").write_text("")
        code, _, err = run("make", tmp_path / "file" / "keys")
    else:
        tmp_path.chmod(0o500)
        code, _, err = run("make", tmp_path / "keys")
    assert (code, "cannot make keys" in err) == (2, True)


@pytest.mark.parametrize(
    ("seconds", "says"),
    [
        (30 * 86400.0, "30.0 days"), (2 * 86400.0, "2.0 days"), (86400.0, "24.0 hours"), (3600.0, "60.0 minutes"),
        (100.0, "100.0 seconds"), (1.0, "1.0 seconds"),
    ],
)  # fmt: skip
def test_a_span_is_said_in_a_unit_that_fits(seconds: float, says: str) -> None:
    assert _span(seconds) == says


@pytest.mark.parametrize(
    ("count", "says"), [(0, "0 B"), (999, "999 B"), (9200, "9.2 kB"), (1_000_000, "1.0 MB"), (2_000_000_000, "2.0 GB")]
)
def test_a_size_is_said_in_a_unit_that_fits(count: int, says: str) -> None:
    assert _size(count) == says


def test_the_commands_say_hours_and_kilobytes(tmp_path: Path) -> None:
    make(tmp_path / "run" / "keys", humans=1, threshold=1)
    publisher.Lab.of(tmp_path / "run")
    said = run("show", tmp_path / "run")[1]
    assert re.search(r"timestamp .* \d+\.\d minutes", said)
    assert re.search(r"snapshot .* 2[34]\.\d hours", said)
    assert re.search(r" holds \d+\.\d kB, good for a week", run("carry", tmp_path / "run", tmp_path / "stick")[1])
