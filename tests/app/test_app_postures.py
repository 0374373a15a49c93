"""Postures: raised by whoever may stop things, lowered only by somebody who has no hand in it."""

import pytest

from interlock.app.administration import NotPermittedError
from interlock.app.postures import PostureConflictError, UnknownLineageError
from interlock.core.terms import Posture
from interlock.core.who import Person
from interlock.gateway.messages import Returned
from tests.support.shop import FILES, counter

OKI = Person(user="oki", tenant="acme", roles=("Operator",))
SAM = Person(user="sam", tenant="acme", roles=("Security", "Operator"))
GLO = Person(user="glo", tenant="globex", roles=("Security", "Operator"))


@pytest.fixture
async def shop(database_urls, tmp_path):
    files = {**FILES, "release.yaml": FILES["release.yaml"].replace("status:", "lower: [Security], status:")}
    async with counter(database_urls.app, tmp_path, files=files) as made:
        yield made


async def test_a_raised_posture_binds_the_next_call_and_a_lowered_one_frees_it(shop):
    session = await shop.session()
    assert isinstance(await shop.call(session, "note", text="a"), Returned)
    postures = shop.system.plane.postures
    raised = await postures.set(OKI, session.lineage.id, Posture.READ_ONLY, "odd")
    assert (raised.posture, raised.posture_by) == (Posture.READ_ONLY, "oki")
    assert (await shop.call(session, "note", text="b")).code == "read_only"
    assert [item.lineage_id for item in await postures.worried(OKI)] == [session.lineage.id]
    await postures.set(SAM, session.lineage.id, Posture.NORMAL, "looked into it")
    assert isinstance(await shop.call(session, "note", text="c"), Returned)
    kinds = [(body["posture"], body["by"]) for kind, body in await shop.events("control") if kind == "posture.changed"]
    assert kinds == [("read_only", "oki"), ("normal", "sam")]


async def test_who_raised_it_does_not_lower_it_nor_does_the_user_it_is_about(shop):
    session = await shop.session()
    postures = shop.system.plane.postures
    await postures.set(SAM, session.lineage.id, Posture.HALTED, "odd")
    with pytest.raises(NotPermittedError, match="raised it"):
        await postures.set(SAM, session.lineage.id, Posture.NORMAL, "never mind")
    with pytest.raises(NotPermittedError, match="its user"):
        await postures.set(
            Person(user="ana", tenant="acme", roles=("Security",)), session.lineage.id, Posture.GUARDED, "it is me"
        )
    assert (await shop.call(session, "stock", item="tea")).code == "halted"
    refused = [body["reason"] for kind, body in await shop.events("control") if kind == "control.refused"]
    assert refused == ["raised it", "is its user"]


async def test_without_the_role_or_from_another_tenant_nothing_is_changed(shop):
    session = await shop.session()
    postures = shop.system.plane.postures
    for somebody in (GLO, Person(user="eve", tenant="acme", roles=("Staff",))):
        for posture in Posture:
            with pytest.raises((NotPermittedError, PostureConflictError)):
                await postures.set(somebody, session.lineage.id, posture, "x")
    await postures.set(SAM, session.lineage.id, Posture.GUARDED, "odd")
    with pytest.raises(NotPermittedError):
        await postures.set(OKI, session.lineage.id, Posture.NORMAL, "no role to lower")
    with pytest.raises(UnknownLineageError):
        await postures.set(SAM, "lin_unknown", Posture.NORMAL, "x")
    assert (await postures.worried(SAM))[0].posture is Posture.GUARDED
    assert await postures.worried(GLO) == ()
