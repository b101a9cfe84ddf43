"""The table of mutants applies to the code as it is, and the campaign that runs it finds out who notices."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from bibench_tf.errors import BibenchError


@pytest.fixture(scope="module")
def campaign():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        import campaign

        yield campaign
        sys.modules.pop("campaign", None)


def test_every_mutant_applies(campaign):
    """Whoever changes a line of the table has to bring the table up to date."""
    mutants = campaign.table()
    assert len(mutants) >= 60
    assert len({mutant.harm for mutant in mutants}) == len(mutants)
    for mutant in mutants:
        changed = campaign.mutated(mutant, campaign.ROOT)
        assert changed != (campaign.ROOT / mutant.file).read_text(encoding="utf-8"), mutant.harm
        if mutant.file.endswith(".py"):
            compile(changed, mutant.file, "exec")


def test_the_tests_that_should_notice_exist(campaign):
    for mutant in campaign.table():
        assert mutant.tests, mutant.harm
        for test in mutant.tests:
            file, _, name = test.partition("::")
            path = campaign.ROOT / file
            assert path.exists(), test
            assert not name or re.search(rf"^def {name}\(", path.read_text(encoding="utf-8"), re.MULTILINE), test


@pytest.fixture
def project(tmp_path):
    """A package of one function with one test of it."""
    files = {
        "double.py": "def double(x):\n    return 2 * x  # of x\n",
        "setup.cfg": "[tool:pytest]\nmarkers =\n    slow: s\n    pairs: p\n    cluster: c\n",
        "test_double.py": "from double import double\n\ndef test_it():\n    assert double(2) == 4\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return tmp_path, list(files)


def outcomes(campaign, project, *changes, limit_s=60.0):
    mutants = [campaign.Mutant(new, "double.py", old, new, ("test_double.py",)) for old, new in changes]
    return list(campaign.campaign(mutants, *project, jobs=1, limit_s=limit_s))


def test_outcomes(campaign, project):
    found = outcomes(
        campaign,
        project,
        ("2 * x", "3 * x"),
        ("2 * x", "x + 2"),
        ("2 * x", "2 * x if x != 2 else exit()"),
        ("2 * x", "2 * * x"),
    )
    assert [outcome.verdict for outcome in found] == ["caught", "survived", "caught", "caught"]
    assert found[0].noticed_by == "test_double.py::test_it"
    assert "2 * x" in (project[0] / "double.py").read_text()
    page = campaign.report(found, "abc", 1, 60.0)
    assert "commit abc: 3 of 4 mutants were caught (0 by the time limit), 1 survived (1 minutes, 1 at a time)." in page
    assert "| `double.py` | x + 2 | **survived** |" in page


def test_a_test_that_does_not_end_is_stopped(campaign, project):
    (outcome,) = outcomes(campaign, project, ("return 2", "while True: x\n    return 2"), limit_s=4.0)
    assert (outcome.verdict, outcome.noticed_by) == ("caught by the time limit", "")


@pytest.mark.parametrize(("old", "count"), [("4 * x", 0), (" x", 2)])
def test_a_mutant_that_does_not_apply_is_an_error(campaign, project, old, count):
    with pytest.raises(BibenchError, match=rf"double.py has the text .* {count} times, not once. Bring mutants.toml"):
        outcomes(campaign, project, (old, "x"))


def test_tests_that_fail_anyway_notice_nothing(campaign, project):
    (project[0] / "test_double.py").write_text("def test_it():\n    assert False\n")
    with pytest.raises(BibenchError, match="Tests fail without any change"):
        outcomes(campaign, project, ("2 * x", "3 * x"))
