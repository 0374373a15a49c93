"""What the agents' own operations can write is never a trusted output."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlock.release.errors import ReleaseError
from interlock.release.load import from_files
from interlock.release.trust import wrongly_trusted
from tests.support.shop import FILES

WRITERS = ("pay", "note", "hurried", "slow", "boom", "refund")


def shop(*, trusted, changes, note_is="effects: [write]", stock_is=""):
    """The shop's release with `trusted` on what `stock` returns, and what each writing operation says that it changes."""
    text = FILES["tools/shop.yaml"].replace(
        "{item: string, left: integer}", f"{{item: string, left: integer}}, trusted: {trusted}"
    )
    text = text.replace("note: {effects: [write]", f"note: {{{note_is}").replace("stock:\n    {", f"stock:\n    {{{stock_is}")
    for name in WRITERS:
        if changes.get(name) is not None:
            text = text.replace(f"{name}: {{", f"{name}: {{changes: {changes[name]}, ").replace(
                f"  {name}:\n", f"  {name}:\n    changes: {changes[name]}\n"
            )
    return {**FILES, "tools/shop.yaml": text}


def complaints(**said):
    try:
        from_files(shop(**said))
    except ReleaseError as error:
        return [str(problem) for problem in error.problems]
    return []


def nothing(**said):
    return dict.fromkeys(WRITERS, "{}") | said


def test_a_field_that_an_agent_may_write_is_not_trusted_and_the_writer_is_named():
    (told,) = complaints(trusted="[left]", changes=nothing(note=None))
    assert "shop.stock: 'left' is not to be trusted: shop.note may write it" in told
    assert "changes" in told


def test_when_every_writer_says_what_it_changes_the_rest_is_trusted():
    assert complaints(trusted="[left]", changes=nothing(note="{stock: [item]}")) == []


@pytest.mark.parametrize("changed", ["{stock: [left]}", '{stock: ["*"]}', '{"shop.stock": [left]}'])
def test_what_a_writer_says_it_changes_is_not_trusted(changed):
    assert len(complaints(trusted="[left]", changes=nothing(note=changed))) == 1


def test_the_whole_output_is_not_trusted_when_one_field_is_written():
    assert len(complaints(trusted='["*"]', changes=nothing(note="{stock: [item]}"))) == 1


def test_what_destroys_writes_too_and_what_only_sends_does_not():
    assert len(complaints(trusted="[left]", changes=nothing(note=None), note_is="effects: [destructive]")) == 1
    assert complaints(trusted="[left]", changes=nothing(note=None), note_is="effects: [egress]") == []


def test_what_only_the_gateway_calls_launders_nothing():
    told = complaints(trusted="[left]", changes=nothing(note=None), note_is="internal: true, effects: [write]")
    assert not any("not to be trusted" in line for line in told)


def test_a_name_that_is_no_operation_is_told():
    (told,) = complaints(trusted="[left]", changes=nothing(note="{stok: [left]}"))
    assert "shop.note: changes names 'shop.stok', which is no operation here" in told


PATHS = st.sampled_from(["*", "a", "a.b", "a.b.c", "a[]", "a[].b", "ab", "b"])


@settings(max_examples=30, deadline=None)
@given(trusted=PATHS, changed=st.lists(PATHS, max_size=3), more=PATHS)
def test_a_writer_that_changes_more_never_makes_more_trusted(trusted, changed, more):
    contracts = from_files(FILES).contracts
    quiet = {name: msgspec.structs.replace(contract, changes={}) for name, contract in contracts.items()}
    quiet["shop.stock"] = msgspec.structs.replace(quiet["shop.stock"], trusted=(trusted,))

    def refused(*paths):
        note = msgspec.structs.replace(quiet["shop.note"], changes={"shop.stock": paths})
        return bool(list(wrongly_trusted({**quiet, "shop.note": note})))

    assert refused(*changed, more) >= refused(*changed)
    assert refused(trusted)
