"""A map over processes, each of which sets up something costly once and then answers many calls."""

import multiprocessing
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

Argument = TypeVar("Argument")
Result = TypeVar("Result")


def map_in_workers(
    setup: Callable[[], Callable[[Argument], Result]], arguments: Sequence[Argument], workers: int
) -> Generator[tuple[int, Result], None, None]:
    """Position and result for every argument, as they get ready.

    Every process calls `setup` once, and then what it returned. One worker means this process. However the iteration
    ends (an error, Ctrl-C, an abandoned loop), the processes end with it.

    Raises:
        ChildProcessError: if a worker died.
    """
    if workers == 1:
        yield from enumerate(map(setup(), arguments))
        return
    context = multiprocessing.get_context("spawn")
    todo = enumerate(arguments)
    processes: dict[Connection, Any] = {}
    try:
        for task in zip(range(min(workers, len(arguments))), todo, strict=False):
            connection, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, setup), daemon=True)
            process.start()
            processes[connection] = process
            theirs.close()  # Ours must go, or the death of the worker would not show as the end of the file.
            connection.send(task[1])
        yield from _collect(processes, todo)
    finally:
        for connection, process in processes.items():
            process.terminate()
            process.join()
            connection.close()


def _collect(processes: dict[Connection, Any], todo: Iterator[tuple[int, Argument]]) -> Iterator[tuple[int, Any]]:
    busy = dict(processes)
    while busy:
        for connection in wait(list(busy)):
            assert isinstance(connection, Connection)
            try:
                answer = connection.recv()
                if (task := next(todo, None)) is not None:
                    connection.send(task)
            except (EOFError, OSError):
                busy[connection].join()
                raise ChildProcessError(
                    f"a worker process died with exit code {busy[connection].exitcode}; its own error stands above. "
                    "Run with workers=1 to see it happen in this process."
                ) from None
            if task is None:
                del busy[connection]
            yield answer


def _work(connection: Connection, setup: Callable[[], Callable[[Any], Any]]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends the workers.
    function = setup()
    try:
        while True:
            position, argument = connection.recv()
            connection.send((position, function(argument)))
    except (EOFError, BrokenPipeError):  # The parent is gone.
        return
