"""A model behind an OpenAI-compatible chat endpoint, asked by the same two verbs as a local one.

    model: {from: "openai:<name>@<base-url>#concurrency=32&key_variable=MY_KEY"}

Options stand behind `#`, which no server ever sees. Questions are asked one by one, `concurrency` at a time; what may pass -
429, 5xx, a time-out, a dropped connection, torn JSON, an empty answer - is tried again after

    wait_n = min(cap, base * 2^n) * U(0.5, 1)      or what the server's Retry-After says

and what will not pass - a wrong key, an unknown model - stops the run. `score` reads the first token's top log-probabilities,
so options must differ in their first token, as letters do.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, TypeVar

from argus.core.errors import ArgusError, ModelError, UnsupportedError
from argus.evaluation.endpoint_messages import api_messages, first_token_scores, retry_after, top_log_probabilities
from argus.evaluation.endpoint_reference import parse_reference
from argus.evaluation.inferencers.base import Answer, Question

TOP = 20  # most alternatives per token that the API gives
POOL = 8  # connections of one client: its bookkeeping grows with the square of them
PASSING = {408, 409, 425, 429}  # statuses below 500 that may pass
Q = TypeVar("Q")
T = TypeVar("T")


class RefusedError(ModelError):
    """An answer that no further try will change: a wrong key, an unknown model, a malformed request."""


class UnansweredError(ModelError):
    """A question that got no usable answer in all its tries."""


class _PassingError(Exception):
    """A failure that may pass; `after` is how long the server asks to wait, in seconds."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


@dataclass(slots=True)
class Usage:
    """What was used so far: requests sent, those that failed, tokens as the server counts them."""

    requests: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class EndpointModel:
    """Answers questions through HTTP; `close` it when done.

    Args:
        reference: `openai:<name>@<base-url>#<options>`.

    Raises:
        UnsupportedError: httpx is not installed.
    """

    def __init__(self, reference: str) -> None:
        try:
            import httpx
        except ImportError:
            raise UnsupportedError("endpoints need httpx", hint="pip install 'argus-vl[judge]'") from None
        self.name, self.url, self.options = parse_reference(reference)
        self.usage = Usage()
        self._scores = False  # whether the server was seen to give top log-probabilities
        self._next = 0.0  # when the rate limit lets the next request start
        self._failure: type[Exception] = httpx.HTTPError
        key = os.environ.get(self.options.key_variable)
        certificates, count = httpx.create_ssl_context(), self.options.concurrency
        self._clients = [
            httpx.AsyncClient(
                headers={"Authorization": f"Bearer {key}"} if key else {}, timeout=self.options.timeout, verify=certificates
            )
            for _ in range(-(-count // POOL))
        ]
        self._free: asyncio.LifoQueue[httpx.AsyncClient] = asyncio.LifoQueue()  # a client for each request that may be under way
        for number in range(count):
            self._free.put_nowait(self._clients[number // POOL])
        self._gate, self._closed = threading.Lock(), False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Drop all connections, and whoever still waits for an answer."""
        with self._gate:
            if self._closed:
                return
            self._closed = True
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cost(self) -> float:
        """Price of all tokens so far."""
        used, options = self.usage, self.options
        return (used.prompt_tokens * options.input_price + used.completion_tokens * options.output_price) / 1e6

    def bill(self) -> str:
        """What was used so far, in one line."""
        used = self.usage
        price = f", cost {self.cost():.4f}" if self.cost() else ""
        return (
            f"{self.name}: {used.requests} requests, {used.failed} of them failed; {used.prompt_tokens} prompt tokens, "
            f"{used.completion_tokens} generated{price}"
        )

    def generate(self, questions: Sequence[Question], max_new_tokens: int) -> list[Answer]:
        """Greedy answers, in the order of the questions."""
        return self._wait(self._all(self._write(q, max_new_tokens) for q in questions))

    def score(self, questions: Sequence[Question], mean: bool, end: bool = True) -> list[list[float]]:
        """Log-probability of each option's first token; the same with `mean` and without `end`, since one token is read.

        An option outside the top `TOP` gets the least of their log-probabilities, which it cannot exceed.

        Raises:
            UnsupportedError: the server gives no log-probabilities, or options begin with the same token.
        """
        self.check_scores()
        return self._wait(self._all(self._score(q) for q in questions))

    def first_tokens(self, questions: Sequence[Question]) -> list[list[float]]:
        """Log-probability of each option's first token: all that `score` can read."""
        return self.score(questions, mean=False)

    def check_scores(self) -> None:
        """Ask the server for log-probabilities once.

        Raises:
            UnsupportedError: it gives none.
        """
        if self._scores:
            return
        hint = "Ask by the inferencer `generate`."
        try:
            choice = self._wait(self._ask([{"role": "user", "content": "Answer A or B."}], 1, logprobs=True, top_logprobs=TOP))
        except RefusedError as error:
            if "HTTP 400" not in error.message and "HTTP 422" not in error.message:
                raise
            raise UnsupportedError(f"{self.name} refuses to give log-probabilities", where=self.url, hint=hint) from None
        if not top_log_probabilities(choice):
            raise UnsupportedError(f"{self.name} gives no top log-probabilities", where=self.url, hint=hint)
        self._scores = True

    def each(self, answer: Callable[[Q], T], questions: Iterable[Q]) -> Iterator[tuple[Q, T | ArgusError, float]]:
        """Questions, or lists of them, with their answers and seconds as they come in.

        No more than `concurrency` are held at once. A question without an answer comes with its error; a `RefusedError` stops
        everything.
        """

        def timed(question: Q) -> tuple[T, float]:
            start = time.perf_counter()
            return answer(question), time.perf_counter() - start

        under_way: dict[Future[tuple[T, float]], Q] = {}

        def finished() -> Iterator[tuple[Q, T | ArgusError, float]]:
            for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                question = under_way.pop(future)
                try:
                    yield question, *future.result()
                except RefusedError:
                    raise
                except ArgusError as error:
                    yield question, error, 0.0

        pool = ThreadPoolExecutor(self.options.concurrency)
        try:
            for question in questions:
                under_way[pool.submit(timed, question)] = question
                if len(under_way) >= self.options.concurrency:
                    yield from finished()
            while under_way:
                yield from finished()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            if under_way and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._cancel)  # what is still under way would keep the process waiting

    async def _end(self) -> None:
        await asyncio.gather(
            *self._cancel(), return_exceptions=True
        )  # a loop that stopped earlier would never tell those who wait
        for client in self._clients:
            await client.aclose()

    def _cancel(self) -> set[asyncio.Task[Any]]:
        """Cancels all requests but the task that asks for it; those that were under way."""
        under_way = asyncio.all_tasks(self._loop) - {asyncio.current_task(self._loop)}
        for task in under_way:
            task.cancel()
        return under_way

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        with self._gate:  # a loop that has stopped would never answer, and the thread that asks would keep the process waiting
            if self._closed:
                work.close()
                raise ModelError("the endpoint was closed", where=self.url)
            asked = asyncio.run_coroutine_threadsafe(work, self._loop)
        return asked.result()

    async def _all(self, work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
        return await asyncio.gather(*work)

    async def _write(self, question: Question, max_new_tokens: int) -> Answer:
        choice = await self._ask(api_messages(question), max_new_tokens)
        return Answer(choice["message"]["content"].strip(), tokens=choice["tokens"])

    async def _score(self, question: Question) -> list[float]:
        choice = await self._ask(api_messages(question), 1, logprobs=True, top_logprobs=TOP)
        return first_token_scores(question.sample.options, top_log_probabilities(choice), question.sample.id)

    async def _ask(self, messages: list[dict[str, Any]], max_tokens: int, **more: Any) -> dict[str, Any]:
        """The first choice of an answer, with its number of `tokens`."""
        body = {"model": self.name, "messages": messages, "max_tokens": max_tokens, "temperature": 0, **more}
        reason = ""
        for attempt in range(self.options.retries + 1):
            await self._turn()
            try:
                return await self._once(body)
            except _PassingError as error:
                self.usage.failed += 1
                reason = str(error)
                wait_ = min(self.options.longest_wait, self.options.backoff * 2**attempt) * random.uniform(0.5, 1)
                if attempt < self.options.retries:
                    await asyncio.sleep(wait_ if error.after is None else error.after)
        raise UnansweredError(f"no answer in {self.options.retries + 1} tries; the last: {reason}", where=self.url)

    async def _turn(self) -> None:
        """Waits until the rate limit lets a request start."""
        if self.options.requests_per_minute:
            now = time.monotonic()
            self._next = max(now, self._next) + 60 / self.options.requests_per_minute
            await asyncio.sleep(self._next - 60 / self.options.requests_per_minute - now)

    async def _once(self, body: dict[str, Any]) -> dict[str, Any]:
        client = await self._free.get()
        self.usage.requests += 1
        try:
            async with asyncio.timeout(self.options.timeout):  # httpx limits each read, not the whole
                response = await client.post(f"{self.url}/chat/completions", json=body)
        except (self._failure, TimeoutError) as error:
            raise _PassingError(f"{type(error).__name__} {error}".strip()) from None
        finally:
            self._free.put_nowait(client)
        if response.status_code in PASSING or response.status_code >= 500:
            raise _PassingError(f"HTTP {response.status_code}", retry_after(response.headers.get("retry-after")))
        if response.status_code != 200:
            raise RefusedError(f"HTTP {response.status_code}: {response.text[:300]}", where=self.url)
        try:
            found = response.json()
            choice = found["choices"][0]
            if not isinstance(choice["message"]["content"], str):
                raise _PassingError("an answer without text")
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, IndexError, TypeError) as error:
            raise _PassingError(f"an answer that cannot be read ({type(error).__name__}: {error})") from None
        used = found.get("usage") or {}
        tokens = int(used.get("completion_tokens") or 0)
        self.usage.prompt_tokens += int(used.get("prompt_tokens") or 0)
        self.usage.completion_tokens += tokens
        return {**choice, "tokens": tokens}
