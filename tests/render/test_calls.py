"""Whole rasters over workers, with a cluster of fakes: it is lost, and answers are."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tilemapper.errors import NoWorkerError, TryAgainError
from tilemapper.render import calls
from tilemapper.render.nannies import UnfitError


class FakeFuture:
    """A call that has ended in the way that ``status`` says as soon as it is sent."""

    def __init__(self, key: str, status: str, answer: object) -> None:
        self.key, self.status, self._answer = key, status, answer

    def add_done_callback(self, call) -> None:
        call(self)

    def result(self, timeout: float) -> object:
        if isinstance(self._answer, BaseException):
            raise self._answer
        return self._answer

    def exception(self) -> object:
        return self._answer

    def cancel(self) -> None:
        pass


class FakeClient:
    """Answers each call with the next of ``ends``: (status, answer)."""

    def __init__(self, workers: int | None, *ends: tuple[str, object]) -> None:
        self.workers, self._ends = workers, list(ends)
        self.sent: list[object] = []
        self.scheduler = SimpleNamespace(identity=None)

    def sync(self, _function, **_options):
        if self.workers is None:
            raise OSError("no scheduler")
        names = (f"tcp://{index}" for index in range(self.workers))
        return {"workers": {name: {"resources": {}, "status": "running"} for name in names}}

    def submit(self, _work, item, *, key, pure, resources):
        assert resources is None  # these workers declare none
        self.sent.append(item)
        return FakeFuture(key, *self._ends.pop(0))

    def retire_workers(self, addresses, *, close_workers):
        assert close_workers  # or its nanny starts it again
        self.workers -= len(addresses)


class FakeOwn:
    """Workers of our own, in processes 0 and above."""

    def __init__(self, client: FakeClient) -> None:
        self._client, self._all = client, range(client.workers)

    @property
    def failed(self) -> bool:
        return not self._client.workers

    def address(self, pid: int) -> str | None:
        return f"tcp://{pid}" if pid in self._all else None

    def revive(self) -> None:
        pass


def answered(client: FakeClient, items: str, lonely_s: float = 0.0, own=None) -> list[object]:
    failed = lambda item, line: (item, line)  # noqa: E731
    return list(calls._answered(client, own, str.upper, iter(items), failed, lonely_s, gpu=False))


def test_a_scheduler_that_is_gone_is_no_defect():
    with pytest.raises(NoWorkerError, match="cluster: no worker for 0 s"):
        answered(FakeClient(None), "a")


@pytest.mark.parametrize(
    "lost", [("lost", None), ("cancelled", None), ("finished", TimeoutError())], ids=str
)
def test_an_answer_that_died_or_hangs_with_its_worker_is_asked_for_again(lost):
    client = FakeClient(1, lost, ("finished", "A"), ("finished", "B"))
    assert sorted(answered(client, "ab")) == ["A", "B"]
    assert sorted(client.sent) == ["a", "a", "b"] or sorted(client.sent) == ["a", "b", "b"]


def test_an_error_of_ours_is_told_in_its_own_words_and_another_is_a_defect():
    given_up = TryAgainError("a.tif: no tile for 60 minutes (run.stall_minutes)")
    client = FakeClient(1, ("error", given_up), ("error", KeyError("x")))
    (_, first), (_, second) = answered(client, "ab")
    assert first == str(given_up)
    assert second == "KeyError: 'x'; report this as a defect"


def test_what_a_worker_without_its_gpu_was_called_with_goes_to_another():
    unfit = ("error", UnfitError("device cuda:0: none", 1))
    client = FakeClient(2, unfit, ("finished", "A"), ("finished", "B"), ("finished", "C"))
    assert sorted(answered(client, "abc", own=FakeOwn(client))) == ["A", "B", "C"]
    assert client.workers == 1
    assert sorted(client.sent) in (["a", "a", "b", "c"], ["a", "b", "b", "c"], ["a", "b", "c", "c"])


def test_where_no_worker_is_left_with_its_gpu_that_is_said_at_once_and_nothing_has_failed():
    client = FakeClient(1, ("error", UnfitError("device cuda:0: none", 0)))
    with pytest.raises(NoWorkerError, match=r"none is left .* \(device cuda:0: none\)") as raised:
        answered(client, "a", lonely_s=3600, own=FakeOwn(client))
    assert raised.value.exit_code == 75
