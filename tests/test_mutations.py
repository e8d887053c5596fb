"""The mutations are of the code as it is, each in one place, and their tests exist."""

import pytest
from mutations import MUTATIONS, ROOT


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name.split(":")[0])
def test_a_mutation_changes_one_place(mutation):
    text = (ROOT / "numbanet" / mutation.file).read_text()
    assert text.count(mutation.before) == 1
    assert mutation.before != mutation.after


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name.split(":")[0])
def test_its_test_exists(mutation):
    file, _, name = mutation.test.partition("::")
    text = (ROOT / "tests" / file).read_text()
    assert f"def {name.partition('[')[0]}(" in text if name else text
