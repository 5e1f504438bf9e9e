"""Pushes to a double of the Hub: what arrives, what is sent again, and what each refusal says."""

import json
import shutil
from pathlib import Path

import pytest

from co2s_hf.__main__ import main
from co2s_hf.publish.push import ATTEMPTS, PushError, check_access, named_card, push_folder
from tests.hub_double import _oid

REPO = "me/model"


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def unchanged(model_folder):
    """The folder; the test fails if a push changes it."""
    before = contents(model_folder)
    yield model_folder
    assert contents(model_folder) == before


def test_everything_arrives_in_one_commit(hub, unchanged):
    pushed = push_folder(unchanged, REPO, message="First")
    arrived, sent = hub.repositories[REPO].files(), contents(unchanged)
    assert set(arrived) == set(sent) | {".gitattributes"}
    assert all(arrived[name].read_bytes() == data for name, data in sent.items() if name != "README.md")
    assert arrived["README.md"].read_text() == named_card(sent["README.md"].decode(), REPO)
    assert len(hub.asked("POST .*/commit/")) == 1 and hub.repositories[REPO].messages[pushed.commit] == "First"
    assert (pushed.repo_id, pushed.revision) == (REPO, "main") and pushed.url.endswith(pushed.commit)
    assert not hub.repositories[REPO].private


def test_examples_of_the_card_name_the_repository(unchanged):
    card = (unchanged / "README.md").read_text()
    named = named_card(card, REPO)
    assert f'\nfolder = "{REPO}"\n' in named and f'model="{REPO}"' in named and '"run"' not in named
    assert named_card("# My own words\n", REPO) == "# My own words\n"


def test_a_second_push_sends_only_what_changed(hub, model_folder, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "copy")
    first = push_folder(folder, REPO)
    assert len(hub.asked("^PUT")) == 1
    again = push_folder(folder, REPO)
    assert again.commit == first.commit and len(hub.asked("^PUT")) == 1 and len(hub.asked("commit/")) == 1
    card = folder / "README.md"
    card.write_text(card.read_text() + "\nMore.\n")
    third = push_folder(folder, REPO)
    assert third.commit != first.commit and len(hub.asked("^PUT")) == 1
    assert hub.repositories[REPO].files()["README.md"].read_text().endswith("More.\n")


def test_a_dropped_upload_is_repeated(hub, unchanged):
    hub.fail(r"^PUT /lfs/", times=2)
    push_folder(unchanged, REPO)
    assert len(hub.asked("^PUT")) == 3
    assert hub.repositories[REPO].files()["model.safetensors"].read_bytes() == contents(unchanged)["model.safetensors"]


def test_an_interrupted_push_goes_on_where_it_was(hub, unchanged):
    hub.fail(r"^POST .*/commit/", times=None)
    lines = []
    with pytest.raises(PushError, match=rf"^{REPO} was not reached in {ATTEMPTS} attempts .* the same command goes on"):
        push_folder(unchanged, REPO, say=lines.append)
    assert len(lines) == ATTEMPTS - 1 and all(line.startswith(f"{REPO}: ") for line in lines)
    assert len(hub.asked("^PUT")) == 1  # the weights went up once, for all attempts
    assert "model.safetensors" not in hub.repositories[REPO].files()
    hub.faults.clear()
    push_folder(unchanged, REPO)
    assert len(hub.asked("^PUT")) == 1 and "model.safetensors" in hub.repositories[REPO].files()


@pytest.mark.parametrize("where", ["repos/create", "validate-yaml", "preupload", "objects/batch", "^PUT", "/commit/"])
def test_a_server_error_anywhere_passes(hub, unchanged, where):
    hub.fail(where, 503)
    push_folder(unchanged, REPO)
    assert "model.safetensors" in hub.repositories[REPO].files() and len(hub.repositories[REPO].commits) == 2


def test_too_many_requests_pass_and_a_broken_server_does_not(hub, unchanged):
    hub.fail("/commit/", 429)
    push_folder(unchanged, REPO)
    hub.fail("repos/create", 500, times=None)
    with pytest.raises(PushError, match=f"not reached in {ATTEMPTS} attempts .status 500"):
        push_folder(unchanged, REPO)


def test_a_commit_whose_answer_is_lost_is_not_made_twice(hub, unchanged):
    hub.fail("/commit/", late=True)
    assert push_folder(unchanged, REPO).commit == hub.repositories[REPO].branches["main"]
    assert len(hub.repositories[REPO].commits) == 2  # the first one and that of the double


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, "the Hub does not know you (401 for me/model): log in with `hf auth login`"),
        (403, "(403): your token may not write there"),
        (404, "(404): it is not on the Hub, or your token does not see it"),
        (409, "(409): somebody else changed it at the same moment: the same command goes on"),
        (422, "the Hub refused me/model (status 422)."),
    ],
)
@pytest.mark.parametrize("where", ["preupload", "/commit/"])
def test_refusals_are_one_sentence_and_status_2(hub, unchanged, capsys, where, status, expected):
    hub.fail(where, status, times=None)
    assert main(["push", str(unchanged), REPO]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("co2s: error: ") and expected in printed and printed.count("\n") == 1
    assert len(hub.asked(where)) == 1  # what cannot work is not tried again


def test_without_a_valid_token_nothing_is_sent(hub, unchanged, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    for refused in (lambda: push_folder(unchanged, REPO), lambda: check_access(REPO)):
        with pytest.raises(PushError, match="the Hub does not know you .*hf auth login"):
            refused()
    assert hub.repositories == {} and not hub.asked("preupload")


def test_a_namespace_of_others_is_refused_ahead(hub):
    hub.forbidden.add("others/model")
    with pytest.raises(PushError, match="403.*your token may not write there"):
        check_access("others/model")
    hub.forbidden.clear()
    check_access("others/model")
    hub.forbidden.add("others/model")  # there, and visible, but not to be written to
    with pytest.raises(PushError, match="403.*your token may not write there"):
        check_access("others/model")


def test_access_is_checked_by_making_the_repository(hub):
    assert check_access("model", private=True) == REPO and hub.repositories[REPO].private
    assert check_access(REPO) == REPO
    with pytest.raises(PushError, match="a/b/c is no name on the Hub"):
        check_access("a/b/c")


def test_private_stays_private_or_is_refused(hub, unchanged):
    push_folder(unchanged, REPO, private=True)
    assert hub.repositories[REPO].private
    push_folder(unchanged, "me/public")
    before = len(hub.requests)
    with pytest.raises(PushError, match="me/public is public already"):
        push_folder(unchanged, "me/public", private=True)
    assert not [one for one in hub.requests[before:] if "PUT" in one or "/commit/" in one]


def test_a_branch_is_made_and_main_stays(hub, unchanged):
    pushed = push_folder(unchanged, REPO, revision="last")
    repository = hub.repositories[REPO]
    assert pushed.revision == "last" and "model.safetensors" in repository.files("last")
    assert set(repository.files("main")) == {".gitattributes"}
    assert push_folder(unchanged, REPO, revision="last").commit == pushed.commit


def test_a_pull_request_changes_no_branch(hub, unchanged, capsys):
    check_access(REPO)
    assert main(["push", str(unchanged), REPO, "--create_pr"]) == 0
    assert "/discussions/1" in capsys.readouterr().out
    assert set(hub.repositories[REPO].files("main")) == {".gitattributes"}
    with pytest.raises(PushError, match="leave out the revision"):
        push_folder(unchanged, REPO, create_pr=True, revision="last")
    with pytest.raises(PushError, match="404.*not on the Hub"):
        push_folder(unchanged, "me/absent", create_pr=True)


def test_the_card_is_held_against_the_validator_of_the_hub(hub, model_folder, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "copy")
    card = folder / "README.md"
    card.write_text(card.read_text().replace("license: apache-2.0", "license: my-own"))
    with pytest.raises(PushError, match="Invalid metadata in README.md.* - license 'my-own'"):
        push_folder(folder, REPO)
    assert not hub.asked("^PUT")


def test_an_incomplete_folder_asks_the_hub_nothing(hub, tmp_path, capsys):
    assert main(["push", str(tmp_path), REPO]) == 2
    assert "lacks config.json" in capsys.readouterr().err and hub.requests == []


def test_the_double_names_content_as_git_does():
    assert _oid(b"hello\n", False) == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_a_slow_hub_is_waited_for(hub, unchanged):
    hub.fail("/commit/", 0, latency_s=0.3)
    push_folder(unchanged, REPO)
    assert json.loads((Path(hub.repositories[REPO].path()) / "config.json").read_text())["model_type"] == "co2s"
