"""A parallel map for a function that is expensive to set up: each worker process sets it up once."""

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
    """Apply a function to every argument in worker processes.

    The processes end when the iteration ends, also after an error, Ctrl-C or when the generator is closed early.

    Args:
        setup: Function that each process calls once; it returns the function to apply.
        arguments: Arguments of the function that `setup` returns.
        workers: Number of processes. 1: no other process is started.

    Yields:
        Position of an argument and its result, in the order in which the results become available.

    Raises:
        ChildProcessError: if a worker process died.
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
            # While this process holds the worker's end open, `recv` does not raise an EOFError when the worker dies.
            theirs.close()
            connection.send(task[1])
        yield from _results(processes, todo)
    finally:
        for connection, process in processes.items():
            process.terminate()
            process.join()
            connection.close()


def _results(processes: dict[Connection, Any], todo: Iterator[tuple[int, Argument]]) -> Iterator[tuple[int, Any]]:
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
                    f"a worker process died with exit code {busy[connection].exitcode}; its own error is printed "
                    "above. Run with workers=1 to get the error in this process."
                ) from None
            if task is None:
                del busy[connection]
            yield answer


def _work(connection: Connection, setup: Callable[[], Callable[[Any], Any]]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent ends the workers.
    function = setup()
    try:
        while True:
            position, argument = connection.recv()
            connection.send((position, function(argument)))
    except (EOFError, BrokenPipeError):  # The parent process has ended.
        return
