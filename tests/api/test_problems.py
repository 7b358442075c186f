"""Errors leave as RFC 9457 problems with the right status, and unexpected ones tell nothing."""

import inspect
from http import HTTPStatus

import pytest

from api.problems import UNEXPECTED, as_problem, status_of
from continual.domain import errors


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (errors.NotFoundError, 404),
        (errors.NotAcceptedError, 409),
        (errors.ConflictError, 409),
        (errors.UnreadableImageError, 422),
        (errors.QualityError, 422),
        (errors.StorageFullError, 507),
        (errors.AdapterMismatchError, 503),
        (errors.LedgerError, 500),
        (errors.ArtifactError, 500),
        (errors.RegistryError, 503),
    ],
)
def test_each_error_has_its_status_and_keeps_its_message(kind, status):
    problem = as_problem(kind("7 exceeds 5; send 5 or fewer"))
    assert problem.status == status
    assert problem.detail == "7 exceeds 5; send 5 or fewer"


def test_every_error_of_the_tree_has_a_status():
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    assert len(kinds) > 15
    assert all(isinstance(status_of(kind("x")), HTTPStatus) for kind in kinds)


def test_an_unexpected_error_keeps_its_message_to_the_log():
    problem = as_problem(RuntimeError("password=hunter2"))
    assert (problem.status, problem.detail) == (500, UNEXPECTED)


def test_invalid_input_is_not_repeated_in_the_answer(door, bench, authorised):
    bench.champion("wbc")
    answer = door.http.put(
        "/v1/adapters/wbc/aliases/champion", json={"version": "DOE^JANE", "reason": "x"}, headers=authorised
    )
    assert answer.status_code == 422
    assert "DOE" not in answer.text
    assert "version" in answer.json()["detail"]


def test_values_no_database_can_hold_are_422_not_500(door):
    for path in (
        "/v1/adapters/a%00b/current",
        "/v1/adapters/wbc/versions/99999999999999999999",
        "/v1/sites/a%00/drift",
        "/v1/drift-reports/99999999999999999999",
        "/v1/ledger?after=99999999999999999999",
        "/v1/ledger?limit=100000",
        "/v1/adapters/wbc/aliases/%F0%9F%98%80",
    ):
        answer = door.http.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json"), path
