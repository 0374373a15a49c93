"""What in a text acts on whoever reads it, or gives somebody away."""

import pytest

from interlock.provenance.active import active_parts

CARDS = ["4111 1111 1111 1111", "5500-0000-0000-0004", "378282246310005"]


@pytest.mark.parametrize("card", CARDS)
def test_a_card_is_known_by_its_check_digit(card):
    assert ("card", card) in list(active_parts(f"please use {card} for it"))


@pytest.mark.parametrize("said", ["my credit card: {}", "Visa no. {}", "credit_card_number: {}"])
def test_or_by_the_word_beside_it(said):
    assert ("card", "4237-4252-7456-2575") in list(active_parts(said.format("4237-4252-7456-2575")))
    assert not list(active_parts("order 4237-4252-7456-2575"))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("passport_number: HGK137803", "HGK137803"),
        ("Her passport number is X1234567.", "X1234567"),
        ("SSN 123-45-6789", "123-45-6789"),
        ("driver's licence D-1234-5678", "D-1234-5678"),
    ],
)
def test_papers_are_known_by_the_word_beside_their_number(text, number):
    assert ("identity", number) in list(active_parts(text))


@pytest.mark.parametrize(
    "text",
    [
        "passport control opens at 10:00",
        "bring your passport on 2024-05-01",
        "the year 2024, order 1234567890123, ticket T-1001",
        "a card game for 4 to 6 people",
        "invoice 12345678901234567890123",
        "1234.5678901234567",
    ],
)
def test_other_numbers_are_neither(text):
    assert not [part for part in active_parts(text) if part[0] in {"card", "identity"}]
