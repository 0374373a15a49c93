"""Dates: a whole date vouches for the same date however it is written, and for no other. What fits in part is weak at most."""

import datetime as dt

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from interlock.core.plan import PlannedSource
from interlock.core.terms import Origin
from interlock.provenance.trace import held
from tests.provenance.test_provenance_trace import TOKENIZER, fields, index_of, origin, said, text

DAYS = st.dates(min_value=dt.date(1971, 1, 1), max_value=dt.date(2099, 12, 31))
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
)  # fmt: skip


def other_years(days):
    return st.tuples(days, st.integers(1971, 2099)).filter(lambda pair: pair[0].year != pair[1])


def in_year(day, year):
    assume((day.month, day.day) != (2, 29))
    return day.replace(year=year).isoformat()


def spelt(day, *, year=True):
    return f"{day.day} {MONTHS[day.month - 1]}" + (f" {day.year}" if year else "")


@pytest.mark.parametrize("trusted", [(), ("due",)])
@given(other_years(DAYS))
def test_a_field_vouches_for_no_date_of_another_year(trusted, pair):
    day, year = pair
    for written in (day.isoformat(), spelt(day), f"{day.isoformat()} 10:00"):
        for value in (in_year(day, year), f"{in_year(day, year)} 10:00"):
            assert origin(value, fields({"due": written}, trusted=trusted)) is Origin.COMPUTED


@given(other_years(DAYS))
def test_nor_does_the_field_that_a_plan_names_hold_it(pair):
    day, year = pair
    index = index_of(fields({"due": day.isoformat()}))
    for field in ("due", ""):
        source = (PlannedSource(operation="crm.find", field=field),)
        assert held(index, TOKENIZER, day.isoformat(), source)
        assert held(index, TOKENIZER, spelt(day), source)
        assert not held(index, TOKENIZER, in_year(day, year), source)


@given(other_years(DAYS))
def test_a_day_that_the_user_gave_without_its_year_is_weak_for_a_date_of_any_year(pair):
    day, year = pair
    assume((day.month, day.day) != (2, 29))
    for value in (in_year(day, year), spelt(dt.date.fromisoformat(in_year(day, year)))):
        assert origin(value, said(f"on {spelt(day, year=False)}, please")) is Origin.WEAK
        assert origin(value, said(f"on {spelt(day)}, please")) is Origin.COMPUTED
        assert origin(value, fields({"due": spelt(day, year=False)})) is Origin.COMPUTED
        assert origin(value, text(f"on {spelt(day, year=False)}, please")) is Origin.UNTRUSTED


@given(DAYS)
def test_a_whole_date_is_known_in_every_writing_that_names_the_month(day):
    for value in (
        day.isoformat(),
        spelt(day),
        f"{MONTHS[day.month - 1]} {day.day}, {day.year}",
        f"{day.isoformat()}T00:00:00Z",
    ):
        for given_as in (day.isoformat(), spelt(day)):
            midnight = " at 00:00" if "T" in value else ""
            assert origin(value, said(f"on {given_as}{midnight}, please")) in {Origin.USER, Origin.DERIVED}
    assert origin(spelt(day, year=False), said(f"on {day.day}. please, or {spelt(day, year=False)}")) is Origin.USER


@pytest.mark.parametrize("value", ["03/04/2024", "03-04-2024", "03.04.2024", "15/05/24", "15.05.24"])
def test_a_value_that_can_be_read_as_two_dates_is_weak_unless_the_user_wrote_it_so(value):
    assert origin(value, said("on 3 April 2024 or 15 May 2024")) is Origin.WEAK
    assert origin(value, said(f"on {value}")) is Origin.USER
    assert origin(value, fields({"due": "2024-04-03", "end": "2024-05-15"})) in {Origin.COMPUTED, Origin.MODEL}


def test_a_value_that_can_be_read_as_one_date_only_is_that_date():
    assert origin("15/05/2024", said("on 15 May 2024")) is Origin.DERIVED
    assert origin("05/15/2024", said("on 15 May 2024")) is Origin.DERIVED
    assert origin("04/04/2024", said("on 4 April 2024")) is Origin.DERIVED


@pytest.mark.parametrize("value", ["1.2.12.4", "10.11.12.13", "1.2.12", "10-11-12", "12.08.23.7"])
def test_an_address_or_a_version_is_no_date(value):
    assert origin(value, said("on 1 February 2012, 10 November 2012, 12 August 2023")) in {Origin.MODEL, Origin.WEAK}
    assert origin(value, said("nothing of the kind")) is Origin.MODEL


@pytest.mark.parametrize(
    ("written", "days"),
    [
        ("from January 11th to January 15th 2025", ["2025-01-11", "2025-01-15"]),
        ("3 May, 4 May and 5 May 2027", ["2027-05-03", "2027-05-04", "2027-05-05"]),
        ("May 3rd 2027 until May 5th", ["2027-05-03", "2027-05-05"]),
    ],
)
def test_days_in_a_row_share_the_year_that_one_of_them_has(written, days):
    assert {origin(day, said(f"book it {written}, please")) for day in days} == {Origin.DERIVED}


@pytest.mark.parametrize(
    "written", ["December 30th to January 2nd 2025", "on December 30th. Pay on 31 December 2025", "December 30th, and in 2025"]
)
def test_days_apart_or_across_a_year_do_not(written):
    assert origin("2025-12-30", said(f"book it {written}, please")) is Origin.WEAK
